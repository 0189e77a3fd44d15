"use strict";

// The connection to /v1/events: opened, and opened again where it left off, until it is closed.

const EVENT_NAMES = ["transition", "state", "readiness", "stale", "fresh", "dropped", "phala", "position", "reset"];
const EXCUSES = new Map([
  ["overloaded", "The bridge takes no more streams"],
  ["too-many-streams", "This token has too many streams"],
  ["unavailable", "Not available"],
]);
const LONGEST_WAIT = 30000;
const FULL_WAIT = 10000;

class Stream {
  /** `heard(name, data)` gets each event, `told(tone, words)` the connection's state, `refused()` a bad token. */
  constructor(client, { heard, told, refused }) {
    this.client = client;
    this.heard = heard;
    this.told = told;
    this.refused = refused;
    this.cursor = "";
    this.source = null;
    this.timer = 0;
    this.failures = 0;
    this.excuse = "";
    this.attempt = 0;
  }

  close() {
    this.attempt += 1;
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  /** Begins where it left off, else with a `position`: lists tell what came before. */
  async open() {
    this.close();
    const attempt = this.attempt;
    let address;
    try {
      address = await this.address();
    } catch (error) {
      if (attempt !== this.attempt) return;
      if (error.status === 401) this.refused();
      else this.later();
      return;
    }
    if (attempt === this.attempt) this.listen(new EventSource(address));
  }

  /** A stream token lives for a minute: each connection has its own. */
  async address() {
    const query = new URLSearchParams({ snapshot: "0" });
    if (this.cursor) query.set("last_event_id", this.cursor);
    if (this.client.token) query.set("access_token", (await this.client.ask("/v1/stream-tokens", "POST")).access_token);
    return `/v1/events?${query}`;
  }

  listen(source) {
    this.source = source;
    source.addEventListener("open", () => {
      this.excuse = "";
      this.told("good", "Live");
    });
    source.addEventListener("error", () => this.ended(source));
    for (const name of EVENT_NAMES) source.addEventListener(name, (event) => this.take(name, event));
    for (const [name, words] of EXCUSES) source.addEventListener(name, (event) => this.apologise(words, event));
  }

  take(name, event) {
    this.failures = 0;
    if (event.lastEventId) this.cursor = event.lastEventId;
    if (name === "reset") this.cursor = "";
    this.heard(name, JSON.parse(event.data));
  }

  /** A passing problem, sent as an event before the bridge closes the stream. */
  apologise(words, event) {
    this.excuse = `${words}: ${JSON.parse(event.data).detail}`;
    this.told("busy", this.excuse);
  }

  ended(source) {
    if (source !== this.source) return;
    // The browser comes back by itself, by its own cursor and the bridge's `retry:`; but not with a spent token.
    if (source.readyState === EventSource.CONNECTING && !this.client.token) {
      this.told("busy", this.excuse || "Reconnecting");
      return;
    }
    this.later();
  }

  later() {
    this.close();
    const most = Math.min(LONGEST_WAIT, 1000 * 2 ** this.failures);
    const wait = this.excuse ? FULL_WAIT : most * (0.5 + Math.random() / 2);
    this.failures += 1;
    this.told(this.failures > 3 ? "bad" : "busy", this.excuse || "Reconnecting");
    this.timer = setTimeout(() => this.open(), wait);
  }
}
