"use strict";

// What is wrong with the bridge as a whole, in the words of the bridge.

const ENDPOINTS_EVERY = 30000;
const SILENT = "The bridge does not answer. This page may be out of date.";

class Notices {
  constructor(client, endpoints) {
    this.client = client;
    this.endpoints = endpoints;
    this.element = document.getElementById("notice");
    this.asked = 0;
  }

  /** `slots`: the answer of GET /v1/slots, null where the token may not have it. Throws as Client.ask. */
  async tell(slots) {
    const { reason } = await this.client.ask("/readyz");
    const led = slots ? slots.leader !== null : reason !== "no leader";
    if (!led) this.warn("No leader follows the CVMs at the moment: is bridge upstream running? The last known states are shown.");
    else if (slots?.blocked) this.warn("Phala Cloud refuses the bridge's API key. The last known states are shown.");
    else this.warn(await this.undelivered(reason ?? ""));
    return led;
  }

  /** That webhooks wait because no dispatcher runs, or which endpoints are in trouble. */
  async undelivered(reason) {
    if (reason.startsWith("no dispatcher")) return `Webhooks wait, ${reason}: is bridge dispatcher running?`;
    if (this.client.now() - this.asked >= ENDPOINTS_EVERY) {
      this.asked = this.client.now();
      await this.endpoints.read();
    }
    return this.endpoints.trouble();
  }

  warn(words) {
    this.element.hidden = !words;
    this.element.dataset.tone = "bad";
    say(this.element, words);
  }
}
