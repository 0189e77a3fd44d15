"""The wait route for apps and patterns, whose CVMs come and go."""

from __future__ import annotations

import pytest

from bridge.web.api import waits
from bridge.web.streaming import hub, waiter
from tests.unit.test_waiting import Told, changed, readiness
from tests.unit.web.api.test_waits import RUNNING, STARTING, A, B, Bridge, played, told

APP = "app_4d6a"


def of_app(told: Told) -> Told:
    return told[0], {**told[1], "app_id": "4d6a"}


def test_all_cvms_of_an_app_must_be_there_and_a_replica_that_comes_meanwhile_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "READ_AT_ONCE", 1)

    async def scenario(bridge: Bridge) -> None:
        cursor = await bridge.tell(of_app(changed(None, "running", A, ready=True)))
        now, later = await bridge.waits(cvm_id=APP), await bridge.waits(f"?after={cursor}", cvm_id=APP)
        one = await bridge.waits(f"?after={cursor}&any=true", cvm_id="name:web-*")
        assert told(await now)[0] == 200
        await bridge.tell(of_app(changed(None, "starting", B, ready=False)))
        all_of_them = await bridge.waits(cvm_id=APP)
        await bridge.tell(*map(of_app, (readiness(False, True, A), readiness(True, False, A))))
        assert told(await one)[0] == 200
        assert not all_of_them.done()
        assert not later.done()
        await bridge.tell(of_app(changed("starting", "running", B, ready=True)))
        for answer in (await all_of_them, await later):
            assert {item["cvm_id"] for item in answer.json()["items"]} == {A, B}

    played(scenario)


def test_a_set_without_a_member_is_not_reached_until_one_comes() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(RUNNING)
        assert told(await bridge.get("?timeout=0", cvm_id=APP))[:2] == (408, "wait-timeout")
        waiting = await bridge.waits(cvm_id=APP)
        await bridge.tell(of_app(changed(None, "running", B, ready=True)))
        assert told(await waiting)[0] == 200
        assert (await bridge.get(cvm_id="name:")).status_code == 422

    played(scenario)


def test_waits_for_sets_remember_no_more_cvms_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiter, "MOST_MEMBERS", 1)

    async def scenario(bridge: Bridge) -> None:
        cursor = await bridge.tell(STARTING, changed(None, "starting", B, ready=False))
        waiting = await bridge.waits(cvm_id="name:web-*")
        for after in ("", f"?after={cursor}"):
            answer = await bridge.get(after, cvm_id="name:*")
            assert told(answer)[:2] == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        await bridge.tell(changed("starting", "error", B, ready=False))
        assert told(await waiting)[:2] == (409, "wait-failed")
        assert told(await bridge.get("?to=error&any=true", cvm_id="name:*"))[0] == 200

    played(scenario)


def test_streams_and_waits_have_no_more_patterns_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_DIFFERENT_PATTERNS", 1)

    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        waiting = [await bridge.waits("?timeout=9", cvm_id="name:web-*") for _ in range(2)]
        assert told(await bridge.get(cvm_id="name:db-*"))[:2] == (503, "overloaded")
        headers = {"Authorization": "Bearer secret", "Accept": "text/event-stream;status=1"}
        refused = await bridge.http.get("/v1/events?cvm=name:db-*", headers=headers)
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "overloaded")
        assert told(await bridge.get("?timeout=0", cvm_id=APP))[0] == 408
        assert [told(await each)[0] for each in waiting] == [408, 408]
        assert told(await bridge.get("?timeout=0", cvm_id="name:db-*"))[0] == 408

    played(scenario)
