"use strict";

// Requests to this bridge: the token, where one is needed, and the server's clock.

const TOKEN_KEY = "bridge-token";

/** The server refused: `status`, and its words as the message. */
class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || problem.reason || `The bridge answered ${status}`);
    this.status = status;
  }
}

/** Makes nothing of a refusal with this status. */
function passOver(status) {
  return (error) => {
    if (error.status !== status) throw error;
  };
}

class Client {
  constructor() {
    this.ahead = 0; // milliseconds that the server's clock is ahead of this one's
    this.kept = null; // where this tab's storage is closed to us
  }

  get token() {
    try {
      return sessionStorage.getItem(TOKEN_KEY) ?? this.kept;
    } catch {
      return this.kept;
    }
  }

  set token(token) {
    this.kept = token;
    try {
      if (token === null) sessionStorage.removeItem(TOKEN_KEY);
      else sessionStorage.setItem(TOKEN_KEY, token);
    } catch {
      // Kept above, until the page is left.
    }
  }

  /** The server's time, Unix milliseconds. */
  now() {
    return Date.now() + this.ahead;
  }

  /** JSON of `path`; `given` is the body, if any. Throws Refusal, or TypeError without an answer. */
  async ask(path, method = "GET", given = undefined) {
    const headers = { Accept: "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (given) headers["Content-Type"] = "application/json";
    const body = given && JSON.stringify(given);
    return this.read(await fetch(path, { method, headers, body, cache: "no-store", redirect: "error" }));
  }

  async read(answer) {
    this.setClock(answer.headers.get("Date"));
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Refusal(answer.status, body);
    return body;
  }

  setClock(date) {
    const ahead = Date.parse(date ?? "") + 500 - Date.now();
    // The header has whole seconds: a small difference means nothing.
    if (!Number.isNaN(ahead)) this.ahead = Math.abs(ahead) > 1500 ? ahead : 0;
  }

  /** All items of a list, page by page. */
  async all(path) {
    const items = [];
    for (let next = ""; next !== null; ) {
      const page = await this.ask(`${path}?limit=1000${next && `&after=${encodeURIComponent(next)}`}`);
      items.push(...page.items);
      next = page.next;
    }
    return items;
  }

  /** The newest events of the log, oldest first: of the longest of a few periods that the log has and one page holds. */
  async latest() {
    for (const seconds of [3600, 300, 20]) {
      const since = new Date(this.now() - seconds * 1000).toISOString();
      const page = await this.ask(`/v1/events?limit=200&since=${since}`).catch(passOver(410));
      if (page?.next === null) return page.items;
    }
    return [];
  }
}
