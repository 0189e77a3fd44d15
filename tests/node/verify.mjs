// Reads {"hits": [{"headers", "body"}], "secrets", "jwks", "snippet"} from stdin, the middle two by name; `snippet` is a
// module that verifies `v1a`. Prints, for each hit, what each verifier says with each secret or set of keys, as JSON.

import { readFileSync } from "node:fs";
import { parseWebhookEvent } from "@phala/cloud/webhook";
import { Webhook } from "standardwebhooks";

const { hits, secrets, jwks, snippet } = JSON.parse(readFileSync(0, "utf8"));
const documented = await import(`data:text/javascript,${encodeURIComponent(snippet)}`);

function said(given, verify) {
  const answers = Object.entries(given).map(([name, each]) => {
    try {
      return [name, { event: verify(each) }];
    } catch (error) {
      return [name, { refused: error.message }];
    }
  });
  return Object.fromEntries(answers);
}

function verified(keys, headers, body) {
  if (!documented.verify(headers, Buffer.from(body), keys)) throw new Error("no signature fits");
  return true;
}

console.log(
  JSON.stringify(
    hits.map(({ headers, body }) => ({
      phala: said(secrets, (secret) => parseWebhookEvent({ headers, body, secret })),
      standard: said(secrets, (secret) => new Webhook(secret).verify(body, headers, { jsonParse: false }) ?? true),
      v1a: said(jwks, (keys) => verified(keys, headers, body)),
    })),
  ),
);
