"""A faithful Phala Cloud: what upstream is known to do, for demos and for everybody's tests.

It serves the routes that the bridge uses (`/api/v1`: the state route in both modes, the batch status, the
list, the details) over CVMs that live seeded random lives, and it is controlled over HTTP (`/control`):
states, faults, cuts, counters. Whoever points an SDK, the CLI or the bridge at it sees the statuses, bodies
and streams of the real thing.

It is for loopback: anybody who reaches its port controls it, and it holds no secrets worth keeping.

* `world`: CVMs and their state; pure, its clock is `advance(now)`. `lives` is what happens to them by
  themselves.
* `ledger`: who holds which stream, and the limit of five per user. `faults`: what goes wrong on request.
* `app`: the routes, `streams` the SSE answers, `shapes` their bodies, `validation` the 422 ones; `control`:
  the tests' hand.
* `hooks`: Phala Cloud's own webhooks. `server`: all of it on a socket.
"""

from __future__ import annotations
