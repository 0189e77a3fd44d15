"use strict";

// Puts the dashboard together: events change the table, and lists fetched now and then add what events do not contain.

const SLOTS_EVERY = 5000;
const LIST_EVERY = 10000;
const LIST_SOON = 500;
const UNKNOWN_TOKEN = "The bridge does not know this token.";

class Dashboard {
  constructor() {
    this.client = new Client();
    this.address = new Address();
    this.table = new Table(this.client, this.address, (row) => this.details.open(row));
    this.details = new Details(this.client, this.address, this.table.rows);
    this.endpoints = new Endpoints(this.client, this.address);
    this.webhooks = new WebhooksView(this.client, this.address, this.endpoints, (error) => this.unread(error));
    this.notices = new Notices(this.client, this.endpoints);
    this.slots = new SlotCards(this.client, (id) => this.table.rows.get(id)?.name ?? id);
    this.feed = new Feed(this.client);
    this.stream = new TabStream(this.client, {
      heard: (name, data) => this.heard(name, data),
      told: (tone, words) => this.connection(tone, words),
      refused: () => this.askToken(UNKNOWN_TOKEN),
    });
    this.timers = { list: 0, slots: 0 };
    this.behind = 0;
    this.running = false; // lists are read
    this.begun = false; // and the stream is open, or opened again
    this.prepare();
  }

  prepare() {
    document.getElementById("ask-form").addEventListener("submit", (event) => this.given(event));
    document.getElementById("forget").addEventListener("click", () => {
      this.client.token = null;
      location.reload();
    });
    const ask = document.getElementById("ask");
    ask.addEventListener("cancel", (event) => event.preventDefault());
    document.addEventListener("visibilitychange", () => this.running && this.turned());
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address is kept
      document.querySelector("main:not([hidden])").focus();
    });
    this.address.whenTurned(() => this.view());
    // A page in the browser's cache of pages holds no connection.
    addEventListener("pagehide", () => this.stop());
    addEventListener("pageshow", (event) => event.persisted && this.start());
  }

  // Beginning and ending

  async start() {
    this.running = true;
    document.getElementById("forget").hidden = !this.client.token;
    if (!(await this.refresh()) || !this.running) return;
    this.begun = true;
    this.turned();
    this.view();
  }

  /** The view that the address names. */
  view() {
    const webhooks = this.address.get("view") === "webhooks";
    document.getElementById("view-cvms").hidden = webhooks;
    document.getElementById("view-webhooks").hidden = !webhooks;
    for (const link of document.querySelectorAll("nav a[data-view]")) {
      if ((link.dataset.view === "webhooks") === webhooks) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (webhooks && this.begun) this.webhooks.show();
    else this.webhooks.hide();
    this.table.schedule();
  }

  /** Shown or hidden: a hidden tab holds no connection. */
  turned() {
    if (!this.begun) return;
    if (!document.hidden) {
      this.stream.open();
      return;
    }
    this.stream.close();
    this.connection("busy", "Paused while hidden");
  }

  stop() {
    this.running = this.begun = false;
    this.stream.close();
    this.webhooks.hide();
    clearTimeout(this.timers.list);
    clearTimeout(this.timers.slots);
  }

  askToken(fault = "") {
    this.stop();
    this.client.token = null;
    document.getElementById("forget").hidden = true;
    this.connection("busy", "Waiting for a token");
    say(document.getElementById("ask-fault"), fault);
    const ask = document.getElementById("ask");
    if (!ask.open) ask.showModal();
    document.getElementById("token").focus();
  }

  given(event) {
    event.preventDefault();
    const field = document.getElementById("token");
    const token = field.value.trim();
    if (!/^[!-~]+$/.test(token)) {
      say(document.getElementById("ask-fault"), "A token has printable ASCII characters and no spaces.");
      return;
    }
    field.value = "";
    this.client.token = token;
    document.getElementById("ask").close();
    this.connection("busy", "Connecting");
    this.start();
  }

  // Events of the stream

  heard(name, data) {
    if (data.sequence) say(document.getElementById("sequence"), `#${Number(data.sequence)}`);
    if (name === "position") this.catchUp();
    else if (name === "reset") this.reset(data);
    else this.event(name, data);
  }

  /** Every event after this position comes; lists tell what came before. */
  async catchUp() {
    this.list();
    const latest = await this.client.latest().catch(() => []);
    for (const event of latest) this.feed.add(event, false);
  }

  /** The states shown may be wrong: with the position that follows, a new list replaces them. */
  reset(event) {
    for (const row of this.table.rows.values()) row.eventId = "";
    this.feed.add(event);
  }

  event(name, event) {
    const { id, data } = event;
    this.feed.add(event);
    this.details.heard(event);
    if (name === "phala") return; // it tells no state
    if (name === "dropped") {
      this.table.drop(data.cvm_id);
      return;
    }
    const known = this.table.rows.get(data.cvm_id);
    if (!known) this.listSoon();
    else if (!isNewer(id, known.eventId)) return;
    this.table.change(data.cvm_id, { name: data.name, eventId: id, ...this.changes(name, event, known) }, true);
  }

  changes(name, { time, data }, known) {
    if (name === "stale") return { fresh: false, reason: data.reason };
    if (name === "fresh") return { fresh: true, reason: null };
    const { ready, operation } = data;
    if (name === "readiness") return { ready, operation };
    const at = Date.parse(time);
    const since = known && known.status === data.to ? known.since : at;
    return { status: data.to, since, seen: at, state: data.state, ready, operation, fresh: true, reason: null };
  }

  connection(tone, words) {
    const pill = document.getElementById("connection");
    pill.dataset.tone = tone;
    say(pill, words);
    // It was away: what lists say may be old too.
    if (tone === "good" && this.begun) this.watchSlots();
  }

  // What lists say

  async refresh() {
    const listed = await this.list();
    if (listed) this.watchSlots();
    return listed;
  }

  listSoon() {
    clearTimeout(this.timers.list);
    this.timers.list = setTimeout(() => this.list(), LIST_SOON);
  }

  /** Whether it could be read. Comes back by itself, the later the longer the list is. */
  async list() {
    clearTimeout(this.timers.list);
    let found;
    try {
      found = await this.client.all("/v1/cvms");
    } catch (error) {
      return this.unlisted(error);
    }
    if (!this.running) return false;
    this.table.load(found);
    this.details.follow();
    this.checkStream(found);
    this.timers.list = setTimeout(() => this.again(), LIST_EVERY * Math.max(1, found.length / 500));
    return true;
  }

  unlisted(error) {
    if (!this.running) return false;
    if (error.status === 401) {
      this.askToken(this.client.token ? UNKNOWN_TOKEN : "");
      return false;
    }
    if (!this.begun) this.connection("bad", error.status ? error.message : "The bridge does not answer");
    this.timers.list = setTimeout(() => (this.begun ? this.again() : this.start()), LIST_EVERY / 3);
    return false;
  }

  again() {
    if (document.hidden) this.timers.list = setTimeout(() => this.again(), LIST_EVERY);
    else this.list();
  }

  /** A connection may be dead without knowing it: twice behind the list, it is made anew. */
  checkStream(items) {
    const newest = items.reduce((id, item) => (isNewer(item.event_id, id) ? item.event_id : id), "");
    const isLive = this.stream.tone === "good" && this.stream.cursor;
    this.behind = isLive && isNewer(newest, this.stream.cursor) ? this.behind + 1 : 0;
    if (this.behind < 2) return;
    this.behind = 0;
    this.stream.renew();
  }

  async watchSlots() {
    clearTimeout(this.timers.slots);
    if (!document.hidden) await this.readSlots();
    if (this.running) this.timers.slots = setTimeout(() => this.watchSlots(), SLOTS_EVERY);
  }

  async readSlots() {
    try {
      const answer = await this.client.ask("/v1/slots").catch(passOver(403));
      if (answer) {
        this.slots.load(answer);
        this.table.follow(answer);
      } else this.slots.hide("This token sees some CVMs only; the streams tell of all.");
      const led = await this.notices.tell(answer ?? null);
      // Whether states are vouched for changes with it.
      if (this.led !== undefined && this.led !== led) this.listSoon();
      this.led = led;
    } catch (error) {
      this.unread(error);
    }
  }

  unread(error) {
    if (error.status === 401) this.askToken(UNKNOWN_TOKEN);
    else this.notices.warn(error.status ? error.message : SILENT);
  }
}

new Dashboard().start();
