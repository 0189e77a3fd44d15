// Reads {"secret", "headers", "body"} from stdin; prints what each published verifier says of it, as one JSON object.

import { readFileSync } from "node:fs";
import { parseWebhookEvent } from "@phala/cloud/webhook";
import { Webhook } from "standardwebhooks";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));

function said(verify) {
  try {
    return { event: verify() };
  } catch (error) {
    return { refused: error.message };
  }
}

console.log(
  JSON.stringify({
    phala: said(() => parseWebhookEvent({ headers, body, secret })),
    standard: said(() => new Webhook(secret).verify(body, headers)),
  }),
);
