"""What readers make of values that no bridge wrote: each part is read on its own, and what is no record is left out."""

from __future__ import annotations

import json
import math

import pytest

from bridge.events import Event
from bridge.store.connection import Backend
from bridge.store.leader_status import read_leader_status
from bridge.store.reference_lookups import MOST_LOOKUPS, Answer, ReferenceLookups
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watches
from tests.fakes import HandClock

BYTES = b"\xff\xfe"
LONG = "x" * 300

ODD_TEXTS = ["", "words", "[]", "7", "null", "{}", "[" * 5000, '"text"', "1e999"]


@pytest.mark.parametrize("score", [math.inf, -math.inf, -1, 1e300, 9e14])
async def test_a_watch_whose_time_cannot_be_read_is_wanted_now_and_then_lingers(
    backend: Backend, clock: HandClock, score: float
) -> None:
    watches = Watches(backend)
    await backend.client.zadd(backend.keys.watches, {"cvm-1": score})
    assert (await watches.survey()).watches == {"cvm-1": clock.ms}
    wanted = clock.ms
    clock.now += 100
    assert (await watches.survey()).watches == {"cvm-1": wanted}
    assert [watch.cvm_id for watch in await watches.list()] == ["cvm-1"]


async def test_members_that_name_no_cvm_are_ignored_and_told_once(
    backend: Backend, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    keys, client, watches = backend.keys, backend.client, Watches(backend)
    odd = [BYTES, LONG, "a\nb", "", "\x00"]
    for key in (keys.pins, keys.config_pins, keys.hints):
        await client.sadd(key, "good", *odd)
    for key, score in ((keys.watches, 5), (keys.lookups, int(clock.now))):
        await client.zadd(key, {"good": score, **dict.fromkeys(odd, score)})
    for _ in range(2):
        survey = await watches.survey()
        assert survey.pins == survey.config_pins == set(survey.watches) == {"good"}
        assert (survey.lookups, survey.hints) == (("good",), ("good",))
    assert len(caplog.records) == 5


ODD_ANNOUNCEMENTS = [
    *ODD_TEXTS,
    '{"until":1e999,"cvms":{"a":1}}',
    '{"until":1%s,"cvms":{"a":1}}' % ("0" * 400),
    '{"until":UNTIL,"cvms":{"a":1%s}}' % ("0" * 400),
    '{"until":"words","cvms":{"a":1}}',
    '{"until":true,"cvms":{"a":1}}',
    '{"until":9e14,"cvms":{"a":1}}',
    '{"until":UNTIL,"cvms":["a"]}',
    '{"until":UNTIL,"cvms":{"a":"many","b":null,"c":-3,"d":1e999,"e":{},"f":true,"g":1e300}}',
    '{"until":UNTIL}',
    '{"until":UNTIL,"cvms":{},"sets":["app_1"]}',
    '{"until":UNTIL,"cvms":{},"sets":{"web-1":1,"name:":1,"name:[":1,"app_1":"x","*":-1}}',
]


@pytest.mark.parametrize("text", ODD_ANNOUNCEMENTS, ids=lambda text: text[:50])
async def test_an_announcement_that_cannot_be_read_asks_for_nothing(
    backend: Backend, clock: HandClock, text: str
) -> None:
    watches = Watches(backend)
    await backend.client.hset(backend.keys.demand, "front", text.replace("UNTIL", str(clock.ms + 5000)))
    await watches.announce("good", {"a": 2}, 15)
    survey = await watches.survey()
    assert (survey.demand, survey.sets) == ({"a": 2}, {})
    await watches.want("a")
    watch = await watches.get("a")
    assert watch is not None
    assert watch.subscribers == 2
    clock.now += 10
    await watches.sweep()
    assert await backend.client.hkeys(backend.keys.demand) == ["good"]


async def test_lookups_that_nobody_renews_take_no_turn_of_those_that_wait(backend: Backend, clock: HandClock) -> None:
    lookups, watches = ReferenceLookups(backend), Watches(backend)
    odd = {b"\xff%d" % number: math.inf if number % 2 else -math.inf for number in range(MOST_LOOKUPS)}
    await backend.client.zadd(backend.keys.lookups, odd)
    assert await lookups.ask("web") is None
    assert (await watches.survey()).lookups == ("web",)
    for _ in range(4):  # a caller that still waits is not forgotten
        clock.now += 25
        assert await lookups.ask("web") is None
        assert (await watches.survey()).lookups == ("web",)


async def test_waiting_lookups_keep_their_turns(backend: Backend, clock: HandClock) -> None:
    lookups = ReferenceLookups(backend)
    for reference in ("first", "second", "first"):
        await lookups.ask(reference)
        clock.now += 1
    assert (await Watches(backend).survey()).lookups == ("first", "second")


ODD_ANSWERS = [
    *ODD_TEXTS,
    '{"cvm_id":7,"status":200,"body":"","content_type":"x"}',
    '{"cvm_id":null,"status":200,"body":"","content_type":"x"}',
    '{"cvm_id":null,"status":"words","body":"","content_type":"x"}',
    '{"cvm_id":null,"status":99999,"body":"","content_type":"x"}',
    '{"cvm_id":null,"status":404,"body":null,"content_type":"x"}',
    '{"cvm_id":null,"status":404,"body":"","content_type":"a\\r\\nb: c"}',
    '{"cvm_id":"a\\nb","status":404,"body":"","content_type":"x"}',
]


@pytest.mark.parametrize("text", ODD_ANSWERS, ids=lambda text: text[:50])
async def test_an_answer_that_no_leader_wrote_is_asked_for_again(backend: Backend, clock: HandClock, text: str) -> None:
    lookups = ReferenceLookups(backend)
    await backend.client.set(backend.keys.answer("web"), text)
    assert await lookups.ask("web") is None
    assert (await Watches(backend).survey()).lookups == ("web",)
    await lookups.answer(Answer("web", "cvm-1"))
    assert await lookups.ask("web") == Answer("web", "cvm-1")


async def test_an_answer_of_another_type_is_asked_for_again(backend: Backend, clock: HandClock) -> None:
    await backend.client.rpush(backend.keys.answer("web"), "x")
    assert await ReferenceLookups(backend).ask("web") is None


GOOD = Snapshot("cvm-1", '{"status":"running"}', "running", "web", "s", "o", "5-0", True)

ODD_SNAPSHOTS = [
    *ODD_TEXTS,
    '{"state":',
    '{"state":{"a":1}',
    '{"state":{"a":1},"status":5,"event_id":"5-0"}',
    '{"state":{"a":1},"status":"x","name":[],"event_id":"5-0"}',
    '{"state":{"a":1},"status":"x","observed_at":17,"event_id":"5-0"}',
    '{"state":{"a":1},"status":"x","event_id":"words"}',
    '{"state":{"a":1},"status":"x","event_id":7}',
    '{"state":{\n"a":1},"status":"x","event_id":"5-0"}',
    '{"stale":{"a":1},"status":"x","event_id":"5-0"}',
    '{"state":' + "[" * 5000,
]


@pytest.mark.parametrize("text", ODD_SNAPSHOTS, ids=lambda text: text[:50])
async def test_a_snapshot_that_cannot_be_read_is_left_out(backend: Backend, clock: HandClock, text: str) -> None:
    await backend.client.hset(
        backend.keys.state, mapping={"cvm-1": GOOD.to_json(), "cvm-2": text, BYTES: GOOD.to_json()}
    )
    assert await Snapshots(backend).all() == {"cvm-1": GOOD}
    assert await Snapshots(backend).get(["cvm-1", "cvm-2"]) == {"cvm-1": GOOD}


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: text[:50])
async def test_a_status_that_no_leader_wrote_is_none(backend: Backend, clock: HandClock, text: str) -> None:
    await backend.client.set(backend.keys.leader_status, text)
    assert await read_leader_status(backend) == {}


async def test_of_a_leaders_status_each_field_is_read_on_its_own(backend: Backend, clock: HandClock) -> None:
    stored = {"leader": "h", "epoch": "7", "budget": [], "polling": "words", "polled_because": 7, "blocked": False}
    await backend.client.set(backend.keys.leader_status, json.dumps(stored))
    assert await read_leader_status(backend) == {"leader": "h", "blocked": False}


@pytest.mark.parametrize("change", [{"type": "a\nb"}, {"sequence": "-1"}, {"sequence": "9" * 17}, {"sequence": None}])
def test_an_entry_that_would_be_more_than_one_block_of_a_stream_is_no_event(change: dict[str, str | None]) -> None:
    fields = {"type": "cvm.state", "subject": "a", "sequence": "1", "data": {}} | change
    with pytest.raises(ValueError, match="not an event"):
        Event.from_log("5-0", json.dumps(fields))


def test_an_entry_of_several_lines_is_no_event() -> None:
    fields = {"type": "cvm.state", "subject": "a", "sequence": "1", "data": {}}
    assert Event.from_log("5-0", json.dumps(fields)).sequence == 1
    with pytest.raises(ValueError, match="not an event"):
        Event.from_log("5-0", json.dumps(fields, indent=1))
