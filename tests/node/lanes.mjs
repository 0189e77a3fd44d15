// The lanes of the dashboard's timeline, for each of the cases on stdin: [events, present, period].

import { readFileSync } from "node:fs";

const pages = new URL("../../bridge/web/pages/", import.meta.url);
const code = ["words.js", "timeline_lanes.js"].map((name) => readFileSync(new URL(name, pages), "utf8")).join("\n");
const lanesOf = new Function(`${code}; return lanesOf;`)();

const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(([events, present, period]) => lanesOf(events, present, period))));
