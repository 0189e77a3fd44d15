// Reads {"id", "target", "count", "abort"} from stdin; prints the state now, and what each of `count` watchers was told
// and gave back. Bridge or upstream: the environment says, as for every user of the package.

import { readFileSync } from "node:fs";
import { createClient, watchCvmState } from "@phala/cloud";

const { id, target, count, abort } = JSON.parse(readFileSync(0, "utf8"));
const client = createClient();

async function watch() {
  const events = [];
  const controller = new AbortController();
  const onEvent = (event) => {
    events.push(event);
    if (abort) controller.abort();
  };
  try {
    const request = { id, target, timeout: 20, maxRetries: 1 };
    const state = await watchCvmState(client, request, { signal: controller.signal, onEvent });
    return { events, state };
  } catch (error) {
    return { events, error: error.name };
  }
}

const state = await client.getCvmState({ id });
const watched = await Promise.all(Array.from({ length: count }, watch));
console.log(JSON.stringify({ state, watched }));
