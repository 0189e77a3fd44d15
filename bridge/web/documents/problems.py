"""Every problem that the front end answers with: its stable type, its status, and when it comes."""

from __future__ import annotations

from typing import NamedTuple

PREFIX = "urn:bridge:problem:"


class Known(NamedTuple):
    """`status` 0: the one that the cause has."""

    status: int
    when: str


PROBLEMS = {
    "unauthorized": Known(401, "No valid token came with the request"),
    "bad-signature": Known(401, "A Phala Cloud webhook is forged, or older than five minutes"),
    "forbidden": Known(403, "The token's scope or CVMs do not reach this far"),
    "not-found": Known(404, "There is no such route"),
    "not-watched": Known(404, "The CVM is not watched: `PUT /v1/cvms/{ref}` watches it"),
    "no-such-endpoint": Known(404, "There is no such webhook endpoint"),
    "no-such-delivery": Known(404, "There is no such delivery, or it is no longer kept"),
    "method-not-allowed": Known(405, "The route has other methods"),
    "pinned-by-config": Known(409, "`BRIDGE_CVMS` pins this CVM"),
    "endpoint-disabled": Known(409, "The endpoint is disabled: enable it first"),
    "already-pending": Known(409, "The delivery waits for its attempt already"),
    "too-many-endpoints": Known(409, "There are as many endpoints as the bridge keeps"),
    "history-lost": Known(410, "The log no longer has what follows this cursor"),
    "too-large": Known(413, "The body is too large"),
    "no-json": Known(415, "The body is not announced as JSON"),
    "invalid": Known(422, "`errors` names each field that is wrong, unknown ones among them"),
    "too-many-streams": Known(429, "The token has as many streams open as it may"),
    "internal": Known(500, "The bridge failed"),
    "unavailable": Known(503, "It passes: ask again after `Retry-After`"),
    "overloaded": Known(503, "As many subscribers as this front end takes, or it is shutting down"),
    "no-secret-key": Known(503, "`BRIDGE_SECRET_KEY` is not set, so nothing could be kept secret"),
    "upstream": Known(0, "Upstream could not be asked about this CVM"),
    "http": Known(0, "The request is no HTTP that this server takes"),
}

TYPES = tuple(PREFIX + slug for slug in PROBLEMS)
