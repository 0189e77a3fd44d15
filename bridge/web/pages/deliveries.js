"use strict";

// The deliveries of one endpoint, newest first, each with its attempts.

const DELIVERIES_READ = 50;
const DELIVERY_TONES = { delivered: "good", pending: "busy", given_up: "bad", skipped: "idle" };

class DeliveryList {
  /** `act(path)` makes a POST request; `again()` has everything read again. */
  constructor(client, address, act, again) {
    this.client = client;
    this.address = address;
    this.act = act;
    this.most = DELIVERIES_READ;
    this.shown = new Map(); // elements, by id
    this.list = document.getElementById("deliveries");
    this.status = document.getElementById("delivery-status");
    this.status.addEventListener("change", () => {
      address.set({ delivered: this.status.value, delivery: "" });
      this.most = DELIVERIES_READ;
      again();
    });
    this.older = document.getElementById("older");
    this.older.addEventListener("click", () => {
      this.most = Math.min(1000, this.most * 2);
      again();
    });
  }

  /** Throws as Client.ask. */
  async read(endpoint) {
    if (this.endpoint !== endpoint) {
      this.endpoint = endpoint;
      this.most = DELIVERIES_READ;
      this.list.replaceChildren();
    }
    const status = this.address.get("delivered");
    this.status.value = Object.hasOwn(DELIVERY_TONES, status) ? status : "";
    const path = `/v1/webhooks/${encodeURIComponent(endpoint)}/deliveries?limit=${this.most}`;
    const page = await this.client.ask(path + (this.status.value && `&status=${this.status.value}`));
    const items = await this.withNamed(page.items, endpoint);
    if (endpoint === this.endpoint) this.draw(items, page.next !== null);
  }

  /** The delivery that the address names is shown, also if it is older. */
  async withNamed(items, endpoint) {
    const id = this.address.get("delivery");
    if (!id || items.some((item) => item.id === id)) return items;
    const named = await this.client.ask(`/v1/deliveries/${encodeURIComponent(id)}`).catch(passOver(404));
    return named?.endpoint_id === endpoint ? [...items, named] : items;
  }

  draw(items, more) {
    const elements = items.map((item) => this.entry(item));
    const kept = new Set(items.map((item) => item.id));
    for (const id of this.shown.keys()) if (!kept.has(id)) this.shown.delete(id);
    if (elements.length !== this.list.children.length || elements.some((element, index) => this.list.children[index] !== element)) {
      keepingFocus(this.list, () => this.list.replaceChildren(...elements));
    }
    this.older.hidden = !more || this.most >= 1000;
    document.getElementById("no-deliveries").hidden = items.length > 0;
  }

  /** An element is made anew only if something changed: an opened one stays open. */
  entry(item) {
    const text = JSON.stringify(item);
    const known = this.shown.get(item.id);
    if (known?.text === text) return known.element;
    const element = known?.element ?? this.build(item.id);
    const focused = element.contains(document.activeElement) ? document.activeElement.tagName : "";
    element.firstChild.replaceChildren(this.summary(item), this.body(item));
    if (focused) element.querySelector(focused)?.focus({ preventScroll: true });
    this.shown.set(item.id, { text, element });
    return element;
  }

  build(id) {
    const item = make("li");
    const details = make("details");
    details.open = this.address.get("delivery") === id;
    details.addEventListener("toggle", () => {
      if (details.open) this.address.set({ delivery: id }, false);
      else if (this.address.get("delivery") === id) this.address.set({ delivery: "" }, false);
    });
    item.append(details);
    return item;
  }

  summary(item) {
    const now = this.client.now();
    const summary = make("summary");
    const badge = make("span", "badge", reasonWords(item.status));
    badge.dataset.tone = DELIVERY_TONES[item.status] ?? "idle";
    const { type, data } = item.event;
    const what = make("span", "what");
    what.append(make("strong", "", data?.name ?? data?.cvm_id ?? ""), " ", ...(data ? described(type, data) : [String(type)]));
    const when = make("time", "muted mono", moment(Date.parse(item.created_at), now));
    when.dateTime = item.created_at;
    summary.append(badge, what, when, make("span", "sub", this.resultOf(item, now)));
    return summary;
  }

  resultOf({ attempts, next_attempt_at: next }, now) {
    const words = attempts.length ? [plural(attempts.length, "attempt"), outcomeOf(attempts.at(-1))] : ["no attempt yet"];
    if (next) words.push(Date.parse(next) > now ? `next at ${moment(Date.parse(next), now)}` : "due now");
    return words.join(" · ");
  }

  body(item) {
    const body = make("div", "attempts");
    body.append(make("p", "mono muted", item.id));
    const list = make("ol");
    for (const attempt of item.attempts) list.append(this.attempt(attempt));
    body.append(list);
    const retry = make("button", "", item.status === "pending" ? "Try now" : "Deliver again");
    retry.type = "button";
    retry.addEventListener("click", () => this.act(`/v1/deliveries/${encodeURIComponent(item.id)}/retry`));
    if (item.event.type !== "webhook.test") body.append(retry);
    return body;
  }

  attempt(attempt) {
    const item = make("li");
    const when = make("time", "mono", moment(Date.parse(attempt.at), this.client.now()));
    when.dateTime = attempt.at;
    item.append(when, ` ${outcomeOf(attempt)} in ${attempt.duration_ms.toLocaleString()} ms`);
    if (attempt.response_body) item.append(make("pre", "", attempt.response_body));
    return item;
  }
}

function outcomeOf({ status_code: status, error }) {
  if (status === null) return error ?? "no answer";
  return error ? `${status}, ${error}` : String(status);
}
