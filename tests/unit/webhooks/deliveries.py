"""Events as a webhook gets them, for tests of formats and signatures."""

from __future__ import annotations

from bridge.events import STATE, TRANSITION, Draft, Event, cvm_data

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
