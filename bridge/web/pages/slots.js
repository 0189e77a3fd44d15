"use strict";

// The upstream streams: the holder of each, its deadline, and why the other CVMs are polled.

class SlotCards {
  constructor(client, nameOf) {
    this.client = client;
    this.nameOf = nameOf;
    this.list = document.getElementById("slots");
    this.slots = [];
    setInterval(() => this.tick(), 1000);
  }

  load(answer) {
    this.slots = answer.items;
    while (this.list.children.length < this.slots.length) this.list.append(make("li"));
    this.slots.forEach((slot, index) => this.draw(this.list.children[index], slot));
    say(document.getElementById("polled"), polledWords(answer) || "\u00a0");
    this.tick();
  }

  /** Why there is nothing to show. */
  hide(words) {
    this.slots = [];
    for (const card of this.list.children) {
      card.replaceChildren();
      card.parts = null;
    }
    say(document.getElementById("polled"), words);
  }

  draw(card, slot) {
    if (!card.parts) this.build(card);
    const { number, state, who, left } = card.parts;
    card.dataset.state = slot.state;
    say(number, `Slot ${slot.index + 1}`);
    say(state, slot.state);
    state.dataset.tone = { held: "good", free: "idle" }[slot.state] ?? "busy";
    say(who, slot.cvm_id === null ? "\u2013" : this.nameOf(slot.cvm_id));
    who.title = slot.cvm_id ?? "";
    card.title = slot.holder === null ? "" : `held by ${slot.holder}, epoch ${slot.epoch}`;
    left.hidden = slot.until === null;
  }

  build(card) {
    const parts = { number: make("span", "muted"), state: make("span", "state"), who: make("span", "who") };
    Object.assign(parts, { holder: make("span", "spare"), age: make("span"), rest: make("span"), until: make("span", "spare") });
    parts.left = make("span", "left");
    const [head, held, ends] = [make("div", "head"), make("span", "detail held muted"), make("span", "detail muted")];
    head.append(parts.number, parts.state);
    held.append(parts.holder, parts.age);
    ends.append(parts.rest, parts.until);
    card.replaceChildren(head, parts.who, held, ends, parts.left);
    card.parts = parts;
  }

  tick() {
    const now = this.client.now();
    this.slots.forEach((slot, index) => {
      const { holder, age, rest, until, left } = this.list.children[index].parts;
      if (slot.until === null) {
        say(age, slot.state === "free" ? "no stream" : "");
        for (const part of [holder, rest, until]) say(part, "");
        return;
      }
      const [from, end] = [Date.parse(slot.since), Date.parse(slot.until)];
      say(holder, `by ${slot.holder.slice(0, 8)} `);
      say(age, `for ${span(now - from)}`);
      say(rest, `${span(end - now)} left`);
      say(until, `, until ${moment(end, now)}`);
      const share = Math.min(1, Math.max(0, (end - now) / (end - from)));
      left.style.setProperty("--share", share.toFixed(3));
    });
  }
}

function polledWords({ leader, polling, budget, budget_reason: reason, items, known, found }) {
  if (leader === null) return "";
  const reasons = new Map();
  for (const why of Object.values(polling ?? {})) reasons.set(why, (reasons.get(why) ?? 0) + 1);
  const count = Object.keys(polling ?? {}).length;
  const listed = [...reasons].sort((a, b) => b[1] - a[1]).map(([why, many]) => (reasons.size > 1 ? `${why} (${many})` : why));
  const words = known < found ? [`${known} of ${plural(found, "CVM is", "CVMs are")} known.`] : [];
  if (count) words.push(`${plural(count, "CVM is polled", "CVMs are polled")}: ${listed.join(", ")}.`);
  else words.push("No CVM is polled.");
  if (reason) words.push(`The account allows ${budget} of ${plural(items.length, "stream")} just now: ${reasonWords(reason)}.`);
  return words.join(" ");
}
