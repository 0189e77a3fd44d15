"use strict";

// A tab's end of the shared connection.

const WORKER = "/stream-worker.js";

/** Nothing else can become a worker of this page: the policy takes no other address (trusted types). */
const WORKER_ADDRESS = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: () => WORKER }).createScriptURL(WORKER) ?? WORKER;

class TabStream {
  /** `heard(name, data)` gets each event, `told(tone, words)` the connection's state, `refused()` a bad token. */
  constructor(client, { heard, told, refused }) {
    this.client = client;
    this.hears = { heard, told, refused };
    this.port = null;
    this.alone = false; // without a shared worker
    this.cursor = "";
    this.tone = "";
  }

  /** Begins with a `position`: lists tell what came before. */
  open() {
    this.close();
    const port = this.alone ? portOfOurOwn() : this.sharedPort();
    this.port = port;
    // A port is of one token: what is still on its way when the tab leaves is not heard.
    port.addEventListener("message", ({ data }) => port === this.port && this.take(...data));
    port.start();
    port.postMessage(["join", this.client.token ?? ""]);
  }

  close() {
    this.port?.postMessage(["leave"]);
    this.port?.close();
    this.port = null;
    this.cursor = this.tone = "";
  }

  /** The worker's name is its version: an old one serves the tabs that were opened with it. */
  sharedPort() {
    try {
      const worker = new SharedWorker(WORKER_ADDRESS, { name: document.body.dataset.worker });
      worker.addEventListener("error", () => worker.port === this.port && this.withoutWorker());
      return worker.port;
    } catch {
      // The browser has none, or does not allow it here.
      return portOfOurOwn();
    }
  }

  /** Its script could not be loaded. */
  withoutWorker() {
    this.alone = true;
    this.open();
  }

  /** Nothing arrives any more: the connection is dead, or the worker is. A dead worker is replaced. */
  renew() {
    const { cursor } = this;
    this.open();
    this.port.postMessage(["renew", cursor]);
  }

  take(kind, ...rest) {
    if (kind === "heard") this.cursor = rest[2];
    if (kind === "told") [this.tone] = rest;
    this.hears[kind](...rest);
  }
}

/** Where there is no shared worker, each tab is its own: a connection for each tab that is shown. */
function portOfOurOwn() {
  const { port1, port2 } = new MessageChannel();
  attend(port2);
  return port1;
}
