"use strict";

// One connection for all tabs that are shown and have the same token. A browser opens six to a host and no more.

const LINGER = 1000; // milliseconds without a tab: going from one to another keeps the connection

const sharedStreams = new Map(); // by token; "" without one

class SharedStream {
  constructor(token) {
    this.token = token;
    this.tabs = new Set();
    this.state = ["busy", "Connecting"];
    this.sequence = "";
    this.closing = 0;
    const client = new Client();
    client.token = token || null;
    this.stream = new Stream(client, {
      heard: (name, data) => this.heard(name, data),
      told: (...state) => this.tell("told", ...(this.state = state)),
      refused: () => this.refused(),
    });
  }

  /** The tab is at the connection's position from now on. Before there is one it waits for it, as the others do. */
  join(tab) {
    clearTimeout(this.closing);
    if (this.tabs.size === 0 && !this.closing) this.stream.open();
    this.closing = 0;
    this.tabs.add(tab);
    tab.postMessage(["told", ...this.state]);
    const { cursor } = this.stream;
    if (cursor) tab.postMessage(["heard", "position", { sequence: this.sequence }, cursor]);
  }

  leave(tab) {
    if (this.tabs.delete(tab) && this.tabs.size === 0) this.closing = setTimeout(() => this.close(), LINGER);
  }

  close() {
    clearTimeout(this.closing);
    this.stream.close();
    sharedStreams.delete(this.token);
  }

  /** A tab found that nothing arrives after `cursor`. Several do at the same time. */
  renew(cursor) {
    if (cursor !== this.stream.cursor || this.state[0] !== "good") return;
    this.stream.told("busy", "Reconnecting");
    this.stream.open();
  }

  heard(name, data) {
    this.sequence = data.sequence ?? this.sequence;
    this.tell("heard", name, data, this.stream.cursor);
  }

  refused() {
    this.tell("refused");
    this.tabs.clear();
    this.close();
  }

  tell(...message) {
    for (const tab of this.tabs) tab.postMessage(message);
  }
}

/** Serves the tab at the other end of a port. It hears events of the token that it names, and of no other. */
function attend(tab) {
  let shared = null;
  tab.addEventListener("message", ({ data: [request, value] }) => {
    if (request === "join") {
      shared = sharedStreams.get(value) ?? new SharedStream(value);
      sharedStreams.set(value, shared);
      shared.join(tab);
    } else if (request === "renew") shared?.renew(value);
    else shared?.leave(tab);
  });
  tab.start();
}
