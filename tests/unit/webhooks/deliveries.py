"""Events as a webhook gets them, for tests of formats and signatures."""

from __future__ import annotations

from bridge.clock import rfc3339
from bridge.events import STATE, TRANSITION, Draft, Event, cvm_data
from bridge.store.endpoint_notices import EndpointNotice, about_endpoint, given_up_detail

CVM = "0e4b0c9e-0000-4000-8000-000000000001"
TIME = "2026-11-24T16:01:59.319Z"

# As upstream may write it: numbers and spaces that a parser would not give back.
RAW = '{"id": "0e4b0c9e-0000-4000-8000-000000000001",  "status":"running","uptime":1.10,"big":12345678901234567890}'


def event(
    change: tuple[str | None, str | None] = ("starting", "running"),
    *,
    kind: str = TRANSITION,
    raw: str | None = RAW,
    name: str | None = "web-1",
    cvm_id: str = CVM,
) -> Event:
    """Made the way the log's are."""
    draft = Draft(kind, cvm_id, TIME, cvm_data(cvm_id, name, change, "stream", raw))
    return Event.from_log("1795536119319-0", draft.envelope("/bridge/bridge", 42))


FIRST_SIGHT = event((None, "running"), kind=STATE)
DELETED = event(("running", "deleted"), raw=None)
TEST = Event(
    "test-1",
    0,
    "webhook.test",
    "wh_1",
    f'{{"id":"test-1","specversion":"1.0","source":"/bridge/bridge","type":"webhook.test","subject":"wh_1",'
    f'"time":"{TIME}","datacontenttype":"application/json","sequence":"0000000000000000","data":{{"endpoint_id":"wh_1"}}}}',
)


def notice(kind: str, description: str = "deploys @here <b>", **more: str) -> Event:
    """A notice, made the way the leader makes them."""
    fields = {
        "type": kind,
        "endpoint": "wh_1",
        "about": about_endpoint("https://chat.example/services/T0/B0/secret", description),
        "since": "1795536119319",
        "pending": "3",
        "given_up": "2",
        "reason": "the receiver answered 410 Gone",
        "detail": given_up_detail(event(), "wh_1-1795536119319-0", "http_5xx: the receiver answered 503", 10),
    }
    found = EndpointNotice.of("1795539719319-0", {**fields, **more}, rfc3339(1795539719.319))
    assert found is not None
    return Event.from_log("1795539719400-0", found.draft.envelope("/bridge/bridge", 43))
