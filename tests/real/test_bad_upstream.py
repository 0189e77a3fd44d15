"""What upstream may send that it should not: never a crash, never a made-up transition, never two events out of one."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.bridges import Whole, sse, whole


async def _events(bridge: Whole, cvm_id: str) -> list[tuple[str, object]]:
    found = [json.loads(event.json) for event in await bridge.log() if event.cvm_id == cvm_id]
    return [(event["type"], event["data"].get("to", event["data"].get("reason"))) for event in found]


@pytest.mark.parametrize(
    "raw", [b"nonsense", b"[1]", b'{"id":"x","name":"n"}', b'{"status":7}', b'{"status":NaN}', b""], ids=repr
)
async def test_what_cannot_be_a_state_makes_one_watch_stale_and_no_other(redis_url: str, raw: bytes) -> None:
    async with whole(redis_url, cvms=2) as bridge:
        await bridge.until_seen(2)
        bad, good = bridge.ids
        await bridge.control("PUT", f"/cvms/{bad}/raw?push=1", content=raw)

        async def stale() -> bool:
            _age(bridge, bad)  # again and again: a stream may have confirmed the state a moment ago
            return ("watch.stale", "unparsable") in await _events(bridge, bad)

        await bridge.until(stale, "stale")
        assert await _events(bridge, bad) == [("cvm.state", "running"), ("watch.stale", "unparsable")]
        assert (await bridge.cvm(bad))["stale_reason"] == "unparsable"
        await bridge.patch(good, status="stopped")

        async def told() -> bool:
            return ("cvm.transition", "stopped") in await _events(bridge, good)

        await bridge.until(told, "the other watch goes on")
        await bridge.control("DELETE", f"/cvms/{bad}/raw")
        await bridge.patch(bad, status="stopped")

        async def healed() -> bool:
            return (await _events(bridge, bad))[-2:] == [("watch.fresh", None), ("cvm.transition", "stopped")]

        await bridge.until(healed, "fresh precedes the transition")


def _age(bridge: Whole, cvm_id: str) -> None:
    """Fifteen seconds without confirmation, without waiting for them."""
    context = bridge.upstream.context
    assert context is not None
    context.watches[cvm_id].seen.confirmed_at -= 20


async def test_ten_megabytes_on_one_line_leave_the_other_watches_untouched(redis_url: str) -> None:
    async with whole(redis_url, cvms=2) as bridge:
        await bridge.until_seen(2)
        bad, good = bridge.ids
        raw = b'{"status":"running","name":"' + b"x" * 10_000_000 + b'"}'
        await bridge.control("PUT", f"/cvms/{bad}/raw?push=1", content=raw)
        await bridge.patch(good, status="stopped")

        async def told() -> bool:
            return ("cvm.transition", "stopped") in await _events(bridge, good)

        await bridge.until(told, "the other watch goes on")
        assert await _events(bridge, bad) == [("cvm.state", "running")]


async def test_odd_but_legal_data_passes_verbatim_as_one_event(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        cvm_id = bridge.ids[0]
        name = "a\u2028b\u0085c\r\nd\x00e"
        state = {
            "id": cvm_id,
            "name": name,
            "status": "odd",
            "uptime": 5,
            "boot_progress": None,
            "new": {"deep": [1.10, 1e5]},
        }
        raw = json.dumps(state, ensure_ascii=False).replace("1.1,", "1.10,")
        async with asyncio.TaskGroup() as group:
            stream = group.create_task(sse(bridge.http, f"{bridge.url}/v1/events", 2))
            await asyncio.sleep(0.3)
            await bridge.control("PUT", f"/cvms/{cvm_id}/raw?push=1", content=raw.encode())
        event = stream.result()[1][2]
        assert event["data"]["state"] == state
        assert event["data"]["name"] == name
        assert "1.10" in (await bridge.log())[-1].json


@pytest.mark.parametrize("line_end", ["LF", "CRLF", "CR"])
async def test_one_byte_per_read_with_any_line_end_gives_the_same_events(redis_url: str, line_end: str) -> None:
    async with whole(redis_url, cvms=1, settings={"poll_interval": 60.0}) as bridge:
        await bridge.control("PATCH", "/settings", json={"line_end": line_end, "one_byte": True})
        await bridge.until_seen(1)
        for status in ("stopping", "stopped"):
            await bridge.patch(bridge.ids[0], status=status)

            async def told(status: str = status) -> bool:
                return (await _events(bridge, bridge.ids[0]))[-1] == ("cvm.transition", status)

            await bridge.until(told, status)
        kinds = [kind for kind, _ in await _events(bridge, bridge.ids[0])]
        assert kinds == ["cvm.state", "cvm.transition", "cvm.transition"]


async def test_an_upstream_that_closes_at_once_gets_few_connections(redis_url: str) -> None:
    async with whole(redis_url, cvms=1, settings={"cvms": ()}) as bridge:
        await bridge.control("POST", "/faults", json={"route": "stream", "action": "end", "times": None})
        await bridge.http.put(f"{bridge.url}/v1/cvms/{bridge.ids[0]}")
        await asyncio.sleep(5)
        opened = (await bridge.control("GET", "/streams"))["cvms"][bridge.ids[0]]["opened"]
        counted = (await bridge.control("GET", "/counters"))["requests"].get("stream", 0)
        assert max(opened, counted) <= 6


async def test_a_silent_stream_stays_while_nothing_changed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.upstream.watcher.SILENT_INTERVALS", 0.04)
    async with whole(redis_url, cvms=1, settings={"poll_interval": 60.0}, time_scale=1.0) as bridge:
        await bridge.control("POST", "/faults", json={"route": "stream", "action": "mute", "times": None})
        await bridge.until_seen(1)

        async def read_beside() -> bool:
            return bool((await bridge.control("GET", "/counters"))["requests"].get("state", 0) >= 5)

        await bridge.until(read_beside, "the state route is read beside the silent stream")
        streams = (await bridge.control("GET", "/streams"))["cvms"][bridge.ids[0]]
        assert (streams["open"], streams["opened"]) == (1, 1)


async def test_a_half_open_stream_gives_way_to_polling_once_the_state_route_shows_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.upstream.watcher.SILENT_INTERVALS", 0.04)
    async with whole(redis_url, cvms=1, settings={"poll_interval": 60.0}, time_scale=1.0) as bridge:
        await bridge.control("POST", "/faults", json={"route": "stream", "action": "mute", "times": 1})

        async def muted() -> bool:
            return any(stream["silent"] for stream in (await bridge.control("GET", "/streams"))["items"])

        # Changed sooner, the stream says it on connect and has nothing to be replaced for.
        await bridge.until(muted, "the state on connect is all that it says")
        await bridge.until_seen(1)
        await bridge.patch(bridge.ids[0], status="stopped")

        async def polled() -> bool:
            polling = (await bridge.http.get(f"{bridge.url}/v1/slots")).json()["polling"] or {}
            return "quarantined" in polling.get(bridge.ids[0], "")

        await bridge.until(polled, "the CVM is polled")
        streams = (await bridge.control("GET", "/streams"))["cvms"][bridge.ids[0]]
        assert (streams["open"], streams["opened"]) == (0, 1)
        assert await _events(bridge, bridge.ids[0]) == [("cvm.state", "running"), ("cvm.transition", "stopped")]
