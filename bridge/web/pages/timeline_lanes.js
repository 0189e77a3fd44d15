"use strict";

// What the events of one CVM tell of a period: three lanes of segments, without gaps. Nothing here touches the document.

const LANES = ["status", "ready", "trust"];

/**
 * `events`: those of one CVM in the period, oldest first. `present`: its row of the table. `kept`: the moment from which
 * on the log has everything. Returns for each lane segments of {from, to, value}; a value of null is not known.
 */
function lanesOf(events, present, { begin, kept, end }) {
  const steps = { status: [], ready: [], trust: [] };
  for (const event of events) {
    for (const [lane, before, after] of stepsOf(event)) steps[lane].push({ at: Date.parse(event.time), before, after });
  }
  const now = { status: present.status ?? null, ready: readyWord(present.ready), trust: present.fresh ? "fresh" : trustWord(present.reason) };
  const lane = (name) => segmentsOf(steps[name], now[name], { begin, kept: Math.max(begin, kept), end });
  return Object.fromEntries(LANES.map((name) => [name, lane(name)]));
}

/** What an event changes: lane, value before, value after. */
function stepsOf({ type, data }) {
  switch (type) {
    case "cvm.transition":
    case "cvm.state": {
      const found = [["status", data.from, data.to]];
      if (data.from === null) found.push(["ready", null, readyWord(data.ready)], ["trust", null, "fresh"]);
      return found;
    }
    case "cvm.readiness":
      return [["ready", readyWord(data.was_ready), readyWord(data.ready)]];
    case "watch.stale":
      return [["trust", "fresh", trustWord(data.reason)]];
    case "watch.fresh":
      return [["trust", trustWord(), "fresh"]];
    case "watch.dropped":
      return LANES.map((lane) => [lane, undefined, null]); // it ends whatever was before
    default:
      return [];
  }
}

function readyWord(ready) {
  return ready === true ? "ready" : ready === false ? "not ready" : null;
}

function trustWord(reason) {
  return reason ? `stale: ${reasonWords(reason)}` : "stale";
}

function segmentsOf(steps, now, { begin, kept, end }) {
  const segments = [];
  const add = (from, to, value) => {
    const last = segments.at(-1);
    if (last?.value === value) last.to = to;
    else if (to > from) segments.push({ from, to, value });
  };
  add(begin, Math.min(kept, end), null);
  let [at, value] = [Math.min(kept, end), steps.length ? (steps[0].before ?? null) : now];
  for (const step of steps) {
    const next = Math.min(end, Math.max(at, step.at));
    add(at, next, value);
    [at, value] = [next, step.after];
  }
  add(at, end, value);
  return segments;
}
