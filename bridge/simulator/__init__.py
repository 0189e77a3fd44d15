"""A simulated Phala Cloud for demos and tests: docs/simulator.md describes it for users.

It serves the routes that the bridge uses (`/api/v1`: the state route in both modes, the batch status, the list, the
details) over CVMs that live seeded random lives, with the statuses, bodies and streams that Phala Cloud has. Tests
control it over HTTP (`/control`). It is for loopback: anyone who reaches its port controls it, and it keeps no secret.

* `world`: the CVMs and their states, without I/O; its clock is `advance(now)`. `scenes`: what CVMs do by themselves.
* `stream_quota`: the open streams, and the limit of five per user. `faults`: answers that go wrong on request.
* `app`: the routes; `streams`: the SSE answers; `bodies`: their bodies.
* `control`: the routes under `/control`. `webhooks`: Phala Cloud's own webhooks. `server`: all of it on a socket.
"""

from __future__ import annotations
