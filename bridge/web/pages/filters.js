"use strict";

// What of the table is shown: by status, by a text, as the address has it; and how many CVMs there are of each status.

const MOST_CHIPS = 8;

class Filters {
  /** `changed()` is called when somebody chose otherwise. */
  constructor(address, changed) {
    this.address = address;
    this.changed = changed;
    this.group = document.getElementById("tallies");
    this.search = document.getElementById("search");
    this.search.addEventListener("input", () => {
      this.text = this.search.value.trim().toLowerCase();
      address.set({ find: this.search.value.trim() }, false);
      this.changed();
    });
    address.whenTurned(() => {
      this.read();
      this.changed();
    });
    this.read();
  }

  read() {
    const [show, find] = [this.address.get("show"), this.address.get("find")];
    this.status = show === "stale" || show.startsWith("=") ? show : null; // an upstream may call a status "stale"
    this.text = find.toLowerCase();
    if (this.search.value.trim() !== find) this.search.value = find;
  }

  get active() {
    return this.status !== null || this.text !== "";
  }

  matches(row) {
    const { status, text } = this;
    if (status === "stale" ? row.fresh : status !== null && `=${row.status}` !== status) return false;
    return !text || [row.name, row.id, row.status].some((it) => it?.toLowerCase().includes(text));
  }

  /** Each count is also a filter. Returns how many rows are stale. */
  tally(rows) {
    const counts = new Map();
    let stale = 0;
    for (const row of rows) {
      counts.set(row.status, (counts.get(row.status) ?? 0) + 1);
      stale += row.fresh ? 0 : 1;
    }
    const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, MOST_CHIPS);
    const chips = most.map(([status, count]) => ({
      key: `=${status}`,
      words: `${count} ${status ?? "not seen yet"}`,
      tone: toneOf(status),
    }));
    if (stale || this.status === "stale") chips.push({ key: "stale", words: `${stale} stale`, tone: "bad" });
    this.draw(chips);
    return stale;
  }

  draw(chips) {
    const old = new Map([...this.group.children].map((button) => [button.dataset.key, button]));
    chips.forEach(({ key, words, tone }, index) => {
      const button = old.get(key) ?? this.chip(key);
      old.delete(key);
      say(button, words);
      button.dataset.tone = tone;
      button.setAttribute("aria-pressed", String(this.status === key));
      if (this.group.children[index] !== button) this.group.insertBefore(button, this.group.children[index] ?? null);
    });
    for (const [key, button] of old) if (this.status !== key) button.remove();
  }

  chip(key) {
    const button = make("button");
    button.type = "button";
    button.dataset.key = key;
    button.addEventListener("click", () => {
      this.status = this.status === key ? null : key;
      this.address.set({ show: this.status ?? "" });
      this.changed();
    });
    return button;
  }
}
