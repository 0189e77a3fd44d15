"use strict";

// What is shown stands in the fragment of the address, so that it can be sent to others, and the back button works. A
// fragment never reaches a server: no name of a CVM gets into a log.

class Address {
  constructor() {
    this.listeners = [];
    this.last = location.hash;
    addEventListener("popstate", () => this.turned());
  }

  /** `listener()` is called when the browser goes back or forward, or the address is edited. */
  whenTurned(listener) {
    this.listeners.push(listener);
  }

  turned() {
    if (location.hash === this.last) return;
    this.last = location.hash;
    for (const listener of this.listeners) listener();
  }

  /** "" if it is not there. */
  get(name) {
    return this.values().get(name) ?? "";
  }

  values() {
    return new URLSearchParams(location.hash.slice(1));
  }

  /** "" removes a value. `step`: the back button returns to what was there before. */
  set(values, step = true) {
    const all = this.values();
    for (const [name, value] of Object.entries(values)) {
      if (value) all.set(name, value);
      else all.delete(name);
    }
    const text = all.toString();
    if (text === this.values().toString()) return;
    const address = text ? `#${text}` : location.pathname;
    if (step) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    this.last = location.hash;
  }
}
