"use strict";

// Texts of the dashboard. Values from upstream are only ever set as text.

const TONES = new Map([
  ["running", "good"],
  ["starting", "busy"],
  ["stopping", "busy"],
  ["restarting", "busy"],
  ["provisioning", "busy"],
  ["error", "bad"],
]);

function toneOf(status) {
  return TONES.get(status) ?? "idle";
}

/** An element with a class and a text. */
function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Sets what differs: untouched text costs no layout. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** `change()` moves elements below `parent`: one that has the focus, and is still there, keeps it. */
function keepingFocus(parent, change) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  change();
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function paint(badge, status) {
  say(badge, status ?? "not seen yet");
  badge.dataset.tone = toneOf(status);
  badge.classList.toggle("gone", status === "deleted");
}

/** A time span: two units at most, `milliseconds` below zero count as zero. */
function span(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** A moment as people here read it: today the time, else the day too. */
function moment(milliseconds, now) {
  const date = new Date(milliseconds);
  return date.toDateString() === new Date(now).toDateString() ? CLOCK.format(date) : DAY.format(date);
}

function reasonWords(reason) {
  return (reason ?? "").replaceAll("_", " ");
}

function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}

/** Upstream's words about progress or failure; empty if there are none. */
function progressOf(state) {
  const found = [state?.boot_error, state?.boot_progress, state?.shutdown_progress];
  return found.find((words) => typeof words === "string" && words !== "") ?? "";
}

/** What a CVM waits for, or that it is ready; else upstream's words about progress. */
function readinessOf({ ready, operation, state }) {
  // Beside the badge of the status, which may say the same.
  if (operation) return operation.type === state?.status ? "not ready" : `not ready: ${reasonWords(operation.type ?? "operation")}`;
  return progressOf(state) || (ready ? "ready" : "");
}

/** Whether event id `a` is newer than `b`; a value that is not an event id is older than all. */
function isNewer(a, b) {
  const parts = (id) => /^\d+-\d+$/.test(id ?? "") ? id.split("-").map(BigInt) : [-1n, 0n];
  const [x, y] = [parts(a), parts(b)];
  return x[0] > y[0] || (x[0] === y[0] && x[1] > y[1]);
}
