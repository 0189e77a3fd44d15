"use strict";

// The latest events, newest first, each once, in whatever order they come; and what a screen reader is told of them.

const MOST_EVENTS = 100;
const SPEAK_EVERY = 4000;

class Feed {
  constructor(client) {
    this.client = client;
    this.list = document.getElementById("feed");
    this.waiting = []; // at most MOST_EVENTS, also while nothing is drawn
    this.known = new Set();
    this.frame = 0;
    this.unspoken = [];
    this.speaking = 0;
  }

  add(event, news = true) {
    if (this.known.has(event.id)) return;
    this.known.add(event.id);
    this.waiting.push({ ...event, news });
    if (this.waiting.length > MOST_EVENTS) this.waiting.sort(byAge).shift();
    this.frame ||= requestAnimationFrame(() => this.draw());
    if (news && event.type === "cvm.transition") this.speak(event.data);
  }

  draw() {
    this.frame = 0;
    for (const event of this.waiting.splice(0).sort(byAge)) this.place(this.entry(event), orderOf(event));
    while (this.list.children.length > MOST_EVENTS) this.list.lastChild.remove();
    document.getElementById("quiet").hidden = this.list.children.length > 0;
    if (this.known.size > 20 * MOST_EVENTS) this.known = new Set([...this.known].slice(-2 * MOST_EVENTS));
  }

  /** Nearly always the newest, and first. */
  place(item, order) {
    item.order = order;
    let next = this.list.firstChild;
    while (next && isNewer(next.order, order)) next = next.nextSibling;
    this.list.insertBefore(item, next);
  }

  entry({ type, time, sequence, data, news }) {
    const item = make("li", news ? "fresh" : "");
    const what = make("span", "what");
    what.append(...described(type, data));
    const at = Date.parse(time ?? "");
    const when = make("time", "when", Number.isNaN(at) ? "" : moment(at, this.client.now()));
    when.dateTime = time ?? "";
    const number = make("span", "number mono", sequence ? `#${Number(sequence)}` : "");
    item.append(make("span", "who", data.name ?? data.cvm_id ?? "The log"), when, what, number);
    return item;
  }

  speak(data) {
    this.unspoken.push(`${data.name ?? data.cvm_id}: ${data.from ?? "new"} to ${data.to}`);
    if (!this.speaking) this.speaking = setTimeout(() => this.spoken(), 500);
  }

  spoken() {
    const words = this.unspoken.splice(0);
    this.speaking = words.length ? setTimeout(() => this.spoken(), SPEAK_EVERY) : 0;
    if (words.length) say(document.getElementById("spoken"), words.length > 3 ? `${words.length} CVMs changed` : words.join(". "));
  }
}

/** The id that tells an event's place in the log; a reset has that of its position. */
function orderOf({ id }) {
  return id.split("/")[0];
}

/** Oldest first. */
function byAge(a, b) {
  return isNewer(orderOf(a), orderOf(b)) ? 1 : -1;
}

/** One line about an event, as elements and text. */
function described(type, data) {
  const badge = (status) => {
    const made = make("span", "badge");
    paint(made, status);
    return made;
  };
  switch (type) {
    case "cvm.transition":
      return [badge(data.from), " → ", badge(data.to)];
    case "cvm.state":
      return [badge(data.to), ` ${data.from === null ? "first seen" : progressOf(data.state) || "other details"}`];
    case "cvm.readiness":
      return [data.ready ? "ready" : `not ready: ${reasonWords(data.operation?.type ?? data.reason)}`];
    case "watch.stale":
      return [`stale: ${reasonWords(data.reason)}`];
    case "watch.fresh":
      return ["fresh again"];
    case "watch.dropped":
      return ["no longer watched"];
    case "log.reset":
      return [`started over: ${reasonWords(data.reason)}`];
    default:
      return [String(type)];
  }
}
