"use strict";

// The view of webhooks: read again and again while it is shown.

const WEBHOOKS_EVERY = 4000;

class WebhooksView {
  constructor(client, address, endpoints, failed) {
    this.endpoints = endpoints;
    this.failed = failed;
    this.panel = new EndpointPanel(client, address, endpoints, () => this.refresh());
    this.timer = 0;
    this.shown = false;
  }

  show() {
    this.shown = true;
    this.refresh();
  }

  hide() {
    this.shown = false;
    clearTimeout(this.timer);
  }

  async refresh() {
    clearTimeout(this.timer);
    try {
      if (!document.hidden) await this.read();
    } catch (error) {
      this.failed(error);
    }
    clearTimeout(this.timer);
    if (this.shown) this.timer = setTimeout(() => this.refresh(), WEBHOOKS_EVERY);
  }

  async read() {
    // What the address names may be seen before all endpoints are read again.
    if (this.endpoints.loaded) this.endpoints.draw();
    await this.endpoints.read();
    await this.panel.show();
  }
}
