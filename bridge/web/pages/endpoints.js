"use strict";

// The webhook endpoints with their health: those in trouble first. Their state is asked for; no event tells it.

const ENDPOINT_ROWS = 200; // beyond that, the search finds them
const HEALTH_TONES = { ok: "good", failing: "bad", disabled: "idle", broken: "bad" };
const HEALTH_ORDER = ["failing", "broken", "disabled", "ok"];
const NO_ENDPOINTS = "No webhook endpoint is registered: POST /v1/webhooks, or bridge listen, registers one.";

class Endpoints {
  constructor(client, address) {
    this.client = client;
    this.address = address;
    this.items = [];
    this.loaded = false;
    this.rows = new Map(); // elements, by id
    this.opened = () => {}; // called with the id of an endpoint that somebody chose
    this.body = document.getElementById("endpoints");
    this.search = document.getElementById("find-endpoint");
    this.search.addEventListener("input", () => {
      address.set({ find: this.search.value.trim() }, false);
      this.draw();
    });
    this.health = document.getElementById("health");
    this.health.addEventListener("change", () => {
      address.set({ health: this.health.value });
      this.draw();
    });
  }

  get(id) {
    return this.items.find((item) => item.id === id);
  }

  focus(id) {
    this.rows.get(id)?.parts.name.focus();
  }

  /** Throws as Client.ask. */
  async read() {
    this.items = await this.client.all("/v1/webhooks");
    this.items.sort((a, b) => HEALTH_ORDER.indexOf(a.health) - HEALTH_ORDER.indexOf(b.health) || NAMES.compare(titleOf(a), titleOf(b)));
    this.loaded = true;
    this.draw();
  }

  /** Which ones are failing, or were disabled by the bridge; "" if there are none. */
  trouble() {
    const failing = this.items.filter(({ health }) => health === "failing");
    const disabled = this.items.filter(({ health, disabled_reason: why }) => health === "disabled" && why);
    return [...inTrouble("failing", failing), ...inTrouble("disabled", disabled)].join(" ");
  }

  draw() {
    const [find, health] = [this.address.get("find"), this.address.get("health")];
    if (this.search.value.trim() !== find) this.search.value = find;
    this.health.value = HEALTH_ORDER.includes(health) ? health : "";
    const found = this.items.filter((item) => (!health || item.health === health) && holds(item, find.toLowerCase()));
    const shown = found.slice(0, ENDPOINT_ROWS);
    const elements = shown.map((item) => this.row(item));
    if (elements.some((element, index) => this.body.children[index] !== element) || this.body.children.length > elements.length) {
      keepingFocus(this.body, () => this.body.replaceChildren(...elements));
    }
    const more = found.length - shown.length;
    say(document.getElementById("endpoint-count"), find || health ? `${found.length} of ${this.items.length}` : String(this.items.length));
    const empty = document.getElementById("no-endpoints");
    empty.hidden = shown.length > 0 && more === 0;
    if (this.loaded) say(empty, more ? `${plural(more, "more endpoint")}: search for them.` : this.items.length ? "No endpoint matches." : NO_ENDPOINTS);
  }

  row(item) {
    const row = this.rows.get(item.id) ?? this.build(item.id);
    const { name, url, health, why, pending, success, failure, breaker, held } = row.parts;
    const now = this.client.now();
    say(name, titleOf(item));
    hint(url, item.url ?? "its key is missing here");
    say(health, item.health);
    health.dataset.tone = HEALTH_TONES[item.health] ?? "idle";
    hint(why, troubleOf(item, now));
    say(pending, item.pending.toLocaleString());
    say(success, ago(item.last_success_at, now));
    say(failure, ago(item.last_failure_at, now));
    say(breaker, item.breaker_open ? "open" : "closed");
    breaker.className = item.breaker_open ? "badge" : "muted";
    breaker.dataset.tone = item.breaker_open ? "bad" : "";
    hint(held, item.held_until ? `waits until ${moment(Date.parse(item.held_until), now)}` : "");
    const chosen = this.address.get("endpoint") === item.id;
    if (chosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
    return row;
  }

  build(id) {
    const parts = { name: make("a"), url: make("span", "sub mono"), health: make("span", "badge"), why: make("span", "sub doubt") };
    Object.assign(parts, { pending: make("span"), success: make("span"), failure: make("span"), breaker: make("span"), held: make("span", "sub") });
    parts.name.href = `#view=webhooks&endpoint=${encodeURIComponent(id)}`;
    parts.name.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into a tab of its own
      event.preventDefault(); // the filters are kept
      this.opened(id);
    });
    const row = make("tr");
    const heading = make("th", "c-name");
    heading.scope = "row";
    heading.append(parts.name, parts.url);
    row.append(heading);
    const cells = { health: ["health", "why"], pending: ["pending"], success: ["success"], failure: ["failure"], breaker: ["breaker", "held"] };
    for (const [column, names] of Object.entries(cells)) {
      const cell = make("td", `e-${column}`);
      cell.append(...names.map((name) => parts[name]));
      row.append(cell);
    }
    row.parts = parts;
    this.rows.set(id, row);
    return row;
  }
}

function titleOf({ id, description }) {
  return description || id;
}

function holds(item, text) {
  return !text || [item.id, item.description, item.url, item.owner].some((it) => it?.toLowerCase().includes(text));
}

function inTrouble(health, found) {
  const named = found.slice(0, 3).map(({ id }) => id).join(", ");
  return found.length ? [`${plural(found.length, "webhook endpoint")} ${health}: ${named}${found.length > 3 ? ", …" : ""}.`] : [];
}

/** Why it gets nothing, or late. */
function troubleOf(item, now) {
  if (item.disabled_reason) return item.disabled_reason;
  if (!item.enabled) return "by its owner";
  if (item.failing_since) return `since ${moment(Date.parse(item.failing_since), now)}`;
  return item.postponed_reason ?? "";
}

function ago(time, now) {
  return time ? `${span(now - Date.parse(time))} ago` : "–";
}
