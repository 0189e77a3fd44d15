"use strict";

// A CVM's states, readiness and freshness over a period, as a picture, and what happened as a list.

const PERIODS = { "15m": 15 * 60, "1h": 3600, "6h": 6 * 3600, "1d": 86400, "7d": 7 * 86400 }; // seconds
const MOST_PAGES = 20; // one looks through 5000 events of the log
const MOST_LISTED = 100;
const DRAW_EVERY = 5000;
const LANE_TITLES = { status: "Status", ready: "Ready", trust: "State is" };

class Timeline {
  constructor(client, address) {
    this.client = client;
    this.address = address;
    this.row = null;
    this.events = [];
    this.reading = 0;
    this.picture = document.getElementById("timeline");
    this.choice = document.getElementById("period");
    this.choice.addEventListener("change", () => {
      this.address.set({ period: this.choice.value === "1h" ? "" : this.choice.value }, false);
      this.read();
    });
    setInterval(() => this.row && !document.hidden && this.draw(), DRAW_EVERY);
  }

  show(row) {
    const period = this.address.get("period");
    this.choice.value = Object.hasOwn(PERIODS, period) ? period : "1h";
    if (this.row?.id === row.id) {
      this.row = row;
      return;
    }
    this.row = row;
    this.read();
  }

  hide() {
    this.row = null;
    this.reading += 1;
  }

  async read() {
    const reading = (this.reading += 1);
    this.events = [];
    this.kept = Infinity;
    this.tell("Reading the log …");
    this.draw();
    try {
      const read = await this.history(reading);
      if (reading !== this.reading) return;
      const heard = this.events;
      this.events = read.events;
      for (const event of heard) this.add(event);
      this.kept = read.kept;
      this.tell(read.words);
    } catch (error) {
      if (reading !== this.reading) return;
      this.tell(`The history cannot be read: ${error.status ? error.message : "the bridge does not answer"}`);
    }
    this.draw();
  }

  /** The events of the period, oldest first, the moment from which on they are complete, and words about what is missing. */
  async history(reading) {
    const begin = this.begin();
    const since = `&since=${new Date(begin).toISOString()}`;
    const path = `/v1/cvms/${encodeURIComponent(this.row.id)}/events?limit=1000`;
    let page = await this.client.ask(path + since).catch(passOver(410));
    const kept = page ? begin : await this.beginning();
    page ??= await this.client.ask(path);
    const events = [...page.items];
    for (let pages = 1; page.next !== null && pages < MOST_PAGES && reading === this.reading; pages += 1) {
      page = await this.client.ask(`${path}&after=${encodeURIComponent(page.next)}`);
      events.push(...page.items);
    }
    if (page.next !== null) return { events: [], kept: Infinity, words: "The log has too many events of this time: choose a shorter one." };
    const older = kept > begin ? `The log keeps nothing from before ${moment(kept, this.client.now())}.` : "";
    return { events, kept, words: older };
  }

  /** When the oldest event that is kept was made. */
  async beginning() {
    const { items } = await this.client.ask("/v1/events?limit=1");
    return items.length ? Date.parse(items[0].time) : this.client.now();
  }

  begin() {
    return this.client.now() - PERIODS[this.choice.value] * 1000;
  }

  /** An event of the stream. */
  heard(event) {
    if (event.data.cvm_id !== this.row?.id) return;
    this.add(event);
    this.draw();
  }

  add(event) {
    if (!isNewer(event.id, this.events.at(-1)?.id)) return;
    this.events.push(event);
  }

  tell(words) {
    say(document.getElementById("timeline-note"), words);
  }

  // The picture

  draw() {
    const [begin, end] = [this.begin(), this.client.now()];
    const events = this.events.filter((event) => Date.parse(event.time) >= begin);
    const lanes = lanesOf(events, this.row, { begin, kept: this.kept, end });
    const rows = LANES.map((name) => this.lane(name, lanes[name], { begin, end }));
    this.picture.replaceChildren(...rows, this.axis(begin, end));
    this.picture.setAttribute("aria-label", `${this.row.name ?? this.row.id}: ${inWords(lanes, end)}`);
    this.list(events);
  }

  lane(name, segments, { begin, end }) {
    const track = make("div", "track");
    for (const { from, to, value } of segments) {
      const part = make("span", "part");
      part.append(make("span", "", value ?? ""));
      part.dataset.tone = toneOfPart(name, value);
      part.title = `${value ?? "not known"}: ${moment(from, end)} – ${moment(to, end)}, ${span(to - from)}`;
      part.style.setProperty("left", `${(((from - begin) / (end - begin)) * 100).toFixed(3)}%`);
      part.style.setProperty("width", `${(((to - from) / (end - begin)) * 100).toFixed(3)}%`);
      track.append(part);
    }
    const row = make("div", "lane");
    row.append(make("span", "lane-title", LANE_TITLES[name]), track);
    return row;
  }

  axis(begin, end) {
    const axis = make("div", "axis");
    axis.append(...[0, 0.5, 1].map((share) => make("span", "mono", share === 1 ? "now" : moment(begin + share * (end - begin), end))));
    return axis;
  }

  list(events) {
    const entries = events.slice(-MOST_LISTED).reverse().map(({ type, time, data }) => {
      const item = make("li");
      const when = make("time", "muted mono", moment(Date.parse(time), this.client.now()));
      when.dateTime = time;
      const what = make("span");
      what.append(...described(type, data));
      item.append(when, what);
      return item;
    });
    document.getElementById("happened").replaceChildren(...entries);
    document.getElementById("nothing-happened").hidden = entries.length > 0 || this.kept === Infinity;
  }
}

function toneOfPart(lane, value) {
  if (value === null) return "unknown";
  if (lane === "status") return toneOf(value);
  if (value === "ready" || value === "fresh") return "good";
  return lane === "ready" ? "busy" : "bad";
}

/** The picture for those who do not see it. */
function inWords(lanes, end) {
  const shares = (segments) => {
    const total = new Map();
    for (const { from, to, value } of segments) total.set(value ?? "not known", (total.get(value ?? "not known") ?? 0) + to - from);
    return [...total].map(([value, time]) => `${value} for ${span(time)}`).join(", ");
  };
  const whole = lanes.status.length ? span(end - lanes.status[0].from) : "no time";
  return `in the last ${whole}: status ${shares(lanes.status)}; ${shares(lanes.ready)}; ${shares(lanes.trust)}`;
}
