"""Examples for both documents: the events of one CVM, as the bridge sends them."""

from __future__ import annotations

import json
from typing import Any

from bridge import events
from bridge.events import (
    DELIVERY_GIVEN_UP,
    DROPPED,
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    ENDPOINT_RECOVERED,
    FRESH,
    NOTICES,
    READINESS,
    RESET,
    SNAPSHOT,
    STALE,
    STATE,
    TRANSITION,
    dumps,
)
from bridge.tracing import read
from bridge.web.api.envelopes import APP_ID, CVM_ID, ENDPOINT_ID, STATE_EXAMPLE, TIME, TRACEPARENT
from bridge.web.http.parameters import EXAMPLE_ID
from bridge.web.http.problems import COME_BACK
from bridge.web.streaming import frames

APP = {"cvm_id": CVM_ID, "name": "web-1", "app_id": APP_ID}
NOW = {"ready": True, "operation": None}
CHANGE = {**APP, "from": "starting", "to": "running", "observed_by": "stream", **NOW, "state": STATE_EXAMPLE}
READY = {**APP, "ready": True, "was_ready": False, "operation": None, "reason": "running"}
NOTICED = {
    "endpoint_id": ENDPOINT_ID,
    "url": "https://chat.example/…",
    "description": "deploys",
    "since": "2026-11-24T15:01:59.319Z",
    "pending": 3,
    "given_up": 0,
}
GIVEN_UP = {
    **NOTICED,
    "given_up": 1,
    "delivery_id": f"{ENDPOINT_ID}-{EXAMPLE_ID}",
    "event": {"id": EXAMPLE_ID, "sequence": "0000000000000042", "type": TRANSITION, "subject": CVM_ID},
    "reason": "http_5xx: the receiver answered 503",
    "attempts": 10,
}
PHALA_NOTICE = {
    **APP,
    "notice": {
        "id": "evt_5f0c9a61d2b34e78",
        "event": "cvm.updated",
        "version": "1",
        "created_at": TIME,
        "workspace": {"id": "ws_1", "name": "team"},
        "data": {"cvm_id": CVM_ID, "cvm_name": "web-1", "app_id": APP_ID, "status": "running"},
    },
}
KNOWN = {"since": TIME, "observed_at": TIME, "state": STATE_EXAMPLE}


def envelope(source: str, kind: str, data: Any, *, entry_id: str = EXAMPLE_ID, sequence: int | None = 42) -> Any:
    """As the bridge writes it; without `sequence` it is not about a CVM."""
    subject = None if sequence is None else ENDPOINT_ID if kind in NOTICES else CVM_ID
    about = {"event_id": entry_id, "subject": subject, "time": TIME}
    trace = None if sequence is None or kind == SNAPSHOT else read(TRACEPARENT)
    text = events.envelope(source, kind, dumps(data), **about, sequence=sequence, trace=trace)
    return json.loads(text)


def transition(source: str) -> Any:
    return envelope(source, TRANSITION, CHANGE)


def by_name(source: str) -> dict[str, Any]:
    """The data of each SSE event, by its `event:`."""
    known = {**APP, "from": None, "to": "running", **NOW, "fresh": True, "stale_reason": None, **KNOWN}
    first = {**CHANGE, "from": None, "observed_by": "poll"}
    return {
        "snapshot": envelope(source, SNAPSHOT, known, entry_id=f"{EXAMPLE_ID}/{CVM_ID}"),
        "transition": transition(source),
        "state": envelope(source, STATE, first, entry_id="1795536112004-0", sequence=41),
        "readiness": envelope(source, READINESS, READY, entry_id="1795536119319-1", sequence=43),
        "stale": envelope(source, STALE, {**APP, "reason": "unreachable"}, entry_id="1795536150118-0", sequence=44),
        "fresh": envelope(source, FRESH, APP, entry_id="1795536161733-0", sequence=45),
        "dropped": envelope(source, DROPPED, APP, entry_id="1795536461733-0", sequence=46),
        "failing": envelope(source, ENDPOINT_FAILING, NOTICED, entry_id="1795536461733-1", sequence=47),
        "disabled": envelope(
            source,
            ENDPOINT_DISABLED,
            {**NOTICED, "reason": "the receiver answered 410 Gone"},
            entry_id="1795536461733-2",
            sequence=48,
        ),
        "recovered": envelope(source, ENDPOINT_RECOVERED, NOTICED, entry_id="1795536461733-3", sequence=49),
        "given_up": envelope(source, DELIVERY_GIVEN_UP, GIVEN_UP, entry_id="1795536461733-4", sequence=50),
        "phala": envelope(source, "phala.cvm.updated", PHALA_NOTICE, entry_id="1795536461733-5", sequence=51),
        "position": {"sequence": "42"},
        "reset": envelope(source, RESET, {"reason": "history_lost"}, entry_id=f"{EXAMPLE_ID}/reset", sequence=None),
        **{each.slug: {"detail": each.title} for each in COME_BACK},
    }


def streams(source: str) -> dict[str, tuple[str, str]]:
    """Summary and text of streams, by how they begin."""
    examples, retry, now = by_name(source), frames.OPENING.decode(), EXAMPLE_ID

    def block(name: str, entry_id: str | None) -> str:
        return frames.block(name, dumps(examples[name]), entry_id).decode()

    snapshot, stale = block("snapshot", now), block("stale", "1795536150118-0")
    return {
        "from_now": ("Without a cursor", f"{retry}{snapshot}{stale}{frames.heartbeat(44).decode()}"),
        "resumed": ("With a cursor", f"{retry}{block('transition', now)}{block('readiness', '1795536119319-1')}"),
        "position": ("With `snapshot=0`", f"{retry}{block('position', now)}{stale}"),
        "reset": ("With a cursor that the log cannot honour", f"{retry}{block('reset', None)}{snapshot}"),
    }
