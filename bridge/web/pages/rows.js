"use strict";

// One row of the table: its element, made when it comes into the window, and what is written into it.

const CALM = matchMedia("(prefers-reduced-motion: reduce)");

class RowView {
  constructor(row, opened) {
    this.row = row;
    this.element = make("tr");
    this.cells = {
      name: make("button"),
      id: make("span", "sub mono id"),
      folded: make("span", "sub doubt folded"),
      status: make("span", "badge"),
      progress: make("span", "sub"),
      since: make("span"),
      lasts: make("span", "sub"),
      seen: make("span"),
      followed: make("span"),
      why: make("span", "sub"),
      trust: make("span"),
      reason: make("span", "sub doubt"),
    };
    this.build(opened);
  }

  build(opened) {
    const { name, id, folded, status, progress, since, lasts, seen, followed, why, trust, reason } = this.cells;
    name.type = "button";
    name.addEventListener("click", () => opened(this.row));
    const heading = make("th", "c-name");
    heading.scope = "row";
    heading.append(name, id, folded);
    this.element.append(heading);
    const columns = { status: [status, progress], since: [since, lasts], age: [seen], followed: [followed, why], trust: [trust, reason] };
    for (const [column, parts] of Object.entries(columns)) {
      const cell = make("td", `c-${column}`);
      cell.append(...parts);
      this.element.append(cell);
    }
  }

  draw(now) {
    const { row, cells } = this;
    say(cells.name, row.name ?? row.id);
    say(cells.id, row.name === null ? "" : row.id);
    paint(cells.status, row.status);
    hint(cells.progress, readinessOf(row));
    say(cells.followed, row.followed === undefined ? "…" : (row.followed ?? "no leader"));
    hint(cells.why, row.why ?? "");
    say(cells.trust, row.fresh ? "fresh" : "stale");
    cells.trust.className = row.fresh ? "muted" : "badge";
    cells.trust.dataset.tone = row.fresh ? "" : "bad";
    hint(cells.reason, row.fresh ? "" : reasonWords(row.reason));
    say(cells.folded, row.fresh ? "" : `stale: ${reasonWords(row.reason)}`);
    this.element.classList.toggle("gone", row.status === "deleted");
    this.age(now);
  }

  age(now) {
    const { row, cells } = this;
    say(cells.since, row.since ? moment(row.since, now) : "–");
    say(cells.lasts, row.since ? `for ${span(now - row.since)}` : "");
    say(cells.seen, row.seen ? `${span(now - row.seen)} ago` : "–");
  }

  /** Something is new here. */
  flash() {
    if (CALM.matches) return;
    const [from, to] = [{ backgroundColor: "var(--flash)" }, { backgroundColor: "transparent" }];
    this.element.animate([from, to], { duration: 2000, easing: "ease-out" });
  }
}

/** A short text that may be cut off, whole in its title. */
function hint(element, text) {
  say(element, text);
  if (element.title !== text) element.title = text;
}
