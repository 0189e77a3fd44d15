"use strict";

// The dialog about one CVM, which the address names.

class Details {
  /** `rows`: those of the table, by id. */
  constructor(client, address, rows) {
    this.client = client;
    this.address = address;
    this.rows = rows;
    this.dialog = document.getElementById("more");
    this.timeline = new Timeline(client, address);
    this.dialog.addEventListener("close", () => {
      this.timeline.hide();
      this.address.set({ cvm: "", period: "" });
    });
    address.whenTurned(() => this.follow());
  }

  open(row) {
    this.address.set({ cvm: row.id });
    this.follow();
  }

  /** Shows what the address names, once it is known. */
  follow() {
    const row = this.rows.get(this.address.get("cvm"));
    if (row) this.draw(row);
    else if (this.dialog.open) this.dialog.close();
  }

  heard(event) {
    if (this.dialog.open) this.timeline.heard(event);
  }

  draw(row) {
    say(document.getElementById("more-title"), row.name ?? row.id);
    say(document.getElementById("more-id"), row.id);
    say(document.getElementById("more-state"), row.state ? JSON.stringify(row.state, null, 2) : "none");
    const header = this.client.token ? ' -H "Authorization: Bearer $BRIDGE_TOKEN"' : "";
    say(document.getElementById("more-curl"), `curl -N${header} ${location.origin}/v1/cvms/${encodeURIComponent(row.id)}/events`);
    if (!this.dialog.open) this.dialog.showModal();
    this.timeline.show(row);
  }
}
