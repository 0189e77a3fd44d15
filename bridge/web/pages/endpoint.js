"use strict";

// One endpoint: what it is, what may be done with it, and its deliveries.

const READ_ONLY = "This token may only read. Forget it, and give one with the scope admin.";

class EndpointPanel {
  /** `changed()` is called when something was done to the endpoint. */
  constructor(client, address, endpoints, changed) {
    this.client = client;
    this.address = address;
    this.endpoints = endpoints;
    this.changed = changed;
    this.panel = document.getElementById("endpoint");
    this.title = document.getElementById("endpoint-title");
    this.entered = false; // chosen just now: the focus goes there once it is shown
    endpoints.opened = (id) => this.open(id);
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    document.getElementById("endpoint-close").addEventListener("click", (event) => {
      event.preventDefault(); // the filters are kept
      this.close();
    });
    this.deliveries = new DeliveryList(client, address, (path) => this.act(path, "It is queued."), changed);
    document.getElementById("test").addEventListener("click", () => this.test());
    document.getElementById("enable").addEventListener("click", () => this.act(this.path("/enable"), "It is enabled."));
    document.getElementById("recover-form").addEventListener("submit", (event) => this.recover(event));
  }

  get id() {
    return this.address.get("endpoint");
  }

  /** "" closes it. */
  open(id) {
    this.address.set({ endpoint: id, delivery: "", delivered: "" });
    this.entered = Boolean(id);
    this.changed();
  }

  close() {
    const was = this.id;
    this.open("");
    this.endpoints.focus(was);
  }

  path(rest) {
    return `/v1/webhooks/${encodeURIComponent(this.id)}${rest}`;
  }

  /** Follows the address. Throws as Client.ask. */
  async show() {
    const item = this.endpoints.get(this.id);
    if (this.shown !== this.id) {
      this.shown = this.id;
      this.told("");
    }
    this.panel.hidden = !this.id;
    document.getElementById("endpoint-hint").hidden = Boolean(this.id);
    if (!this.id) return;
    document.getElementById("endpoint-parts").hidden = !item;
    say(this.title, item ? titleOf(item) : `There is no endpoint ${this.id}`);
    if (this.entered) this.title.focus();
    this.entered = false;
    if (!item) return;
    this.facts(item);
    this.actions(item);
    await this.deliveries.read(this.id);
  }

  actions(item) {
    const [enable, test, recover] = ["enable", "test", "recover"].map((name) => document.getElementById(name));
    test.disabled = recover.disabled = !item.enabled;
    const used = enable === document.activeElement;
    enable.hidden = item.enabled || item.health === "broken";
    if (used && enable.hidden) test.focus();
  }

  facts(item) {
    const list = (values) => values.join(", ") || "all";
    const facts = {
      Id: item.id,
      Health: [item.health, troubleOf(item, this.client.now())].filter(Boolean).join(", "), // the table may cut it off
      URL: item.url ?? "its key is missing here",
      Format: `${item.format}, signed ${item.signatures.join(" and ")}`,
      CVMs: list(item.cvms),
      Types: item.types.join(", ") || "all but notices",
      From: item.from.length ? list(item.from) : "",
      To: item.to.length ? list(item.to) : "",
      Ready: item.ready === null ? "" : String(item.ready),
      Limits: [item.rate && `${item.rate} a second`, item.concurrency && `${item.concurrency} at once`].filter(Boolean).join(", "),
      Headers: Object.keys(item.headers).join(", "),
      Owner: item.owner ?? "",
    };
    const parts = Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [make("dt", "muted", name), make("dd", "", value)]);
    const text = parts.map((part) => part.textContent).join("\n");
    const shown = document.getElementById("facts");
    if (shown.dataset.text === text) return;
    shown.dataset.text = text;
    shown.replaceChildren(...parts);
  }

  async test() {
    const made = await this.act(this.path("/test"), "A test is on its way.");
    if (made) this.address.set({ delivery: made.id, delivered: "" });
  }

  recover(event) {
    event.preventDefault();
    const since = new Date(this.client.now() - Number(document.getElementById("recover-since").value) * 1000);
    this.act(this.path("/recover"), ({ queued, complete }) => `${plural(queued, "delivery", "deliveries")} queued${complete ? "" : "; the rest did not fit, recover again later"}.`, { since: since.toISOString() });
  }

  /** `words`, or a function of the answer that makes them. Returns the answer; undefined if it was refused. */
  async act(path, words, given = undefined) {
    const id = this.id;
    let answer;
    try {
      answer = await this.client.ask(path, "POST", given);
    } catch (error) {
      this.told(error.status === 403 ? READ_ONLY : error.status ? error.message : "The bridge does not answer", "bad");
      return undefined;
    }
    if (id === this.id) this.told(typeof words === "function" ? words(answer) : words);
    this.changed();
    return answer;
  }

  told(words, tone = "good") {
    const line = document.getElementById("done");
    line.dataset.tone = tone;
    line.hidden = !words;
    say(line, words);
  }
}
