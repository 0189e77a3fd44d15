"use strict";

// The table of CVMs. Changes are noted at once and drawn in the next frame; only rows in the window have elements.

const ROWS_BEYOND = 12; // above and below the window: what the tab key and a flick of the wheel reach
const SORT_EVERY = 400; // milliseconds: rows that dance cannot be read

const NAMES = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

const SORTS = {
  name: () => 0,
  status: (row) => row.status ?? "",
  since: (row) => row.since ?? 0,
  seen: (row) => row.seen ?? 0,
  followed: (row) => row.followed ?? "",
  trust: (row) => (row.fresh ? "~" : (row.reason ?? "")),
};

class Table {
  /** `opened(row)` is called when somebody asks for more about a CVM. */
  constructor(client, address, opened) {
    this.client = client;
    this.address = address;
    this.opened = opened;
    this.rows = new Map();
    this.sorted = []; // the rows that match, in their order
    this.views = new Map(); // of the rows in the window
    this.dirty = new Set(); // rows in the window that changed
    this.order = { by: "name", down: false };
    this.filters = new Filters(address, () => this.rearrange());
    this.disordered = true;
    this.sortedAt = 0;
    this.frame = 0;
    this.loaded = false;
    this.rowHeight = 0;
    this.table = document.getElementById("cvms");
    this.body = document.getElementById("rows");
    this.prepare();
  }

  prepare() {
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => this.sortBy(button.dataset.sort));
    }
    this.address.whenTurned(() => this.readOrder());
    this.readOrder();
    addEventListener("scroll", () => this.schedule(), { passive: true });
    addEventListener("resize", () => {
      this.rowHeight = 0;
      this.schedule();
    });
    setInterval(() => this.tick(), 1000);
  }

  // The data

  /** A change of some fields; `flash`: it is news. */
  change(id, fields, flash = false) {
    let row = this.rows.get(id);
    if (!row) {
      row = { id, name: null, status: null, fresh: true, followed: undefined, eventId: "", state: null };
      this.rows.set(id, row);
      this.disordered = true;
    }
    const before = this.placeOf(row);
    Object.assign(row, fields);
    this.disordered ||= before !== this.placeOf(row);
    row.flash = flash && this.views.has(id);
    this.dirty.add(row);
    this.schedule();
  }

  placeOf(row) {
    const { status, text } = this.filters;
    const name = this.order.by === "name" || text ? row.name : "";
    return `${row.status === "deleted"} ${SORTS[this.order.by](row)} ${name} ${status === null ? "" : this.filters.matches(row)}`;
  }

  drop(id) {
    if (this.rows.delete(id)) this.disordered = true;
    this.schedule();
  }

  /** The answer of GET /v1/cvms, unless an event is newer. A CVM that is not in it is not watched. */
  load(items) {
    const listed = new Set(items.map((item) => item.cvm_id));
    for (const item of items) {
      const known = this.rows.get(item.cvm_id);
      const rest = { pinned: item.pinned, subscribers: item.subscribers, followed: item.followed_by };
      const seen = Date.parse(item.observed_at ?? "") || null;
      if (known && isNewer(known.eventId, item.event_id)) this.change(item.cvm_id, rest);
      else this.change(item.cvm_id, { ...rest, ...fieldsOf(item, item.status, item.event_id ?? ""), seen });
    }
    for (const id of [...this.rows.keys()]) if (!listed.has(id)) this.drop(id);
    this.loaded = true;
    this.schedule();
  }

  /** The streamed CVMs and why the others are polled, from GET /v1/slots. */
  follow(slots) {
    const streamed = new Set(slots.items.filter((slot) => slot.state === "held").map((slot) => slot.cvm_id));
    for (const row of this.rows.values()) {
      const followed = slots.leader === null ? null : streamed.has(row.id) ? "stream" : "poll";
      const why = followed === "poll" ? (slots.polling?.[row.id] ?? "") : "";
      if (row.followed !== followed || row.why !== why) this.change(row.id, { followed, why });
    }
  }

  // The drawing

  schedule() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const now = performance.now();
    if (this.disordered && now - this.sortedAt < SORT_EVERY) {
      setTimeout(() => this.schedule(), SORT_EVERY);
    } else if (this.disordered) {
      this.sort();
      this.sortedAt = now;
    }
    this.drawWindow();
    this.drawRows();
    this.tell();
  }

  /** The rows of the window into the document, the others out of it. */
  drawWindow() {
    const height = this.rowHeight || 50;
    const top = this.body.getBoundingClientRect().top - this.above() * height;
    const first = Math.max(0, Math.floor(-top / height) - ROWS_BEYOND);
    const many = Math.ceil(innerHeight / height) + 2 * ROWS_BEYOND;
    const begin = Math.min(first, Math.max(0, this.sorted.length - many));
    const shown = this.sorted.slice(begin, begin + many);
    const kept = new Set(shown);
    for (const [id, view] of this.views) {
      if (kept.has(view.row)) continue;
      view.element.remove();
      this.views.delete(id);
    }
    keepingFocus(this.body, () => this.place(shown, begin));
    this.spread("above", begin);
    this.spread("below", this.sorted.length - begin - shown.length);
    this.measure();
  }

  above() {
    return Number(document.getElementById("above").dataset.rows ?? 0);
  }

  /** Moves only the rows that are out of place. */
  place(shown, begin) {
    let next = this.body.firstChild;
    shown.forEach((row, index) => {
      const { element } = this.view(row);
      const place = String(begin + index + 2);
      if (element.getAttribute("aria-rowindex") !== place) element.setAttribute("aria-rowindex", place);
      if (element === next) next = next.nextSibling;
      else this.body.insertBefore(element, next);
    });
  }

  view(row) {
    let view = this.views.get(row.id);
    if (!view) {
      view = new RowView(row, this.opened);
      this.views.set(row.id, view);
      this.dirty.add(row);
    }
    return view;
  }

  /** Room for the rows that have no element. */
  spread(name, rows) {
    const body = document.getElementById(name);
    if (body.dataset.rows === String(rows) && body.dataset.height === String(this.rowHeight)) return;
    body.dataset.rows = rows;
    body.dataset.height = this.rowHeight;
    body.hidden = rows === 0;
    body.firstElementChild.firstElementChild.style.height = `${rows * (this.rowHeight || 50)}px`;
  }

  measure() {
    if (this.rowHeight || !this.body.children.length) return;
    this.rowHeight = this.body.getBoundingClientRect().height / this.body.children.length;
    this.schedule();
  }

  drawRows() {
    const now = this.client.now();
    for (const row of this.dirty) {
      const view = this.views.get(row.id);
      if (!view || view.row !== row) continue;
      view.draw(now);
      if (row.flash) view.flash();
      row.flash = false;
    }
    this.dirty.clear();
  }

  tick() {
    const now = this.client.now();
    for (const view of this.views.values()) view.age(now);
  }

  tell() {
    const [all, shown] = [this.rows.size, this.sorted.length];
    const stale = this.filters.tally(this.rows.values());
    say(document.getElementById("count"), this.filters.active ? `${shown} of ${all}` : all.toLocaleString());
    const empty = document.getElementById("empty");
    empty.hidden = shown > 0;
    if (this.loaded) say(empty, all ? "No CVM matches." : NOTHING_WATCHED);
    this.table.setAttribute("aria-rowcount", String(shown + 1));
    const title = stale ? `bridge · ${stale} stale` : "bridge";
    if (document.title !== title) document.title = title;
  }

  // The order: those of deleted CVMs last

  sort() {
    this.disordered = false;
    const key = SORTS[this.order.by];
    const sign = this.order.down ? -1 : 1;
    const byName = (a, b) => NAMES.compare(a.row.name ?? a.row.id, b.row.name ?? b.row.id) || (a.row.id < b.row.id ? -1 : 1);
    const named = this.order.by === "name" ? sign : 1;
    this.sorted = [...this.rows.values()]
      .filter((row) => this.filters.matches(row))
      .map((row) => ({ row, gone: row.status === "deleted", key: key(row) }))
      .sort((a, b) => a.gone - b.gone || (a.key === b.key ? named * byName(a, b) : a.key < b.key ? -sign : sign))
      .map(({ row }) => row);
  }

  /** At once: somebody asked for it. */
  rearrange() {
    this.disordered = true;
    this.sortedAt = 0;
    this.schedule();
  }

  sortBy(by) {
    const down = this.order.by === by ? !this.order.down : by === "since" || by === "seen";
    this.address.set({ sort: by === "name" && !down ? "" : `${down ? "-" : ""}${by}` });
    this.orderBy(by, down);
  }

  readOrder() {
    const sort = this.address.get("sort");
    const by = sort.replace(/^-/, "");
    if (Object.hasOwn(SORTS, by)) this.orderBy(by, sort.startsWith("-"));
    else this.orderBy("name", false);
  }

  orderBy(by, down) {
    this.order = { by, down };
    for (const button of document.querySelectorAll("[data-sort]")) {
      const heading = button.closest("th");
      if (button.dataset.sort !== by) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", this.order.down ? "descending" : "ascending");
    }
    this.rearrange();
  }
}

const NOTHING_WATCHED = "No CVM is watched: PUT /v1/cvms/{ref}, a subscription or BRIDGE_CVMS makes a watch.";

/** A row's fields of a CVM in the list, or of a snapshot's `data`. */
function fieldsOf(data, status, eventId) {
  return {
    name: data.name,
    status,
    since: Date.parse(data.since ?? "") || null,
    fresh: data.fresh,
    reason: data.stale_reason,
    state: data.state,
    ready: data.ready,
    operation: data.operation,
    eventId,
  };
}
