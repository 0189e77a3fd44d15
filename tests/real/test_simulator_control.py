"""The tests' hand: what `/control` promises, seen from the other side by real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from bridge.simulator.server import Running, serve
from bridge.simulator.world import Cvm, World
from tests.real.waiting import until


@pytest.fixture
async def sim() -> AsyncIterator[Running]:
    """Two CVMs that do nothing by themselves; five seconds take 0.1."""
    world = World(seed=7, cvms=2, frozen=True)
    async with serve(world=world, keys={"key-a": "alice"}, time_scale=0.02) as running:
        yield running


@pytest.fixture
async def client(sim: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"X-API-Key": "key-a"}
    async with httpx.AsyncClient(base_url=sim.api_prefix, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
async def control(sim: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sim.control, trust_env=False) as client:
        yield client


@pytest.fixture
def cvm(sim: Running) -> Cvm:
    return sim.simulator.world.cvms[0]


@pytest.fixture
def path(cvm: Cvm) -> str:
    return f"/cvms/{cvm.vm_uuid}/state"


@contextlib.asynccontextmanager
async def streaming(client: httpx.AsyncClient, path: str, timeout: int = 600) -> AsyncIterator[EventSource]:
    params = {"target": "deleted", "timeout": timeout}
    async with aconnect_sse(client, "GET", path, params=params, timeout=5) as source:
        assert source.response.status_code == 200
        yield source


async def settled(sim: Running, count: int) -> None:
    """Returns once so many streams are connected."""
    await until(lambda: len(sim.simulator.quota.streams()) == count)


async def test_a_cvm_is_made_changed_deleted_and_restored(
    client: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    made = await control.post("/cvms", json={"name": "odd", "status": "provisioning", "set": {"extra": [1]}})
    uuid = made.json()["vm_uuid"]
    await control.patch(f"/cvms/{uuid}", json={"set": {"boot_error": None}, "unset": ["instance_id"]})
    changed = await client.get("/cvms/odd/state")
    await control.patch(f"/cvms/{uuid}", json={"name": "renamed"})
    await control.delete(f"/cvms/{uuid}")
    deleted = await client.get("/cvms/renamed/state")
    view = (await control.get(f"/cvms/{uuid}")).json()
    await control.post(f"/cvms/{uuid}/restore")
    restored = await client.get("/cvms/renamed/state")

    assert made.status_code == 201
    assert changed.json() == {"id": uuid, "name": "odd", "status": "provisioning", "extra": [1], "boot_error": None}
    assert (deleted.status_code, view["deleted"], restored.status_code) == (404, True, 200)
    assert restored.json()["name"] == "renamed"


@pytest.mark.parametrize(
    "raw", [b"not json", b'{"status":"a","x":1.10}', b"", b"\xff\xfe", b'{"status":"' + b"x" * 10_000_000 + b'"}']
)
async def test_a_raw_state_reaches_the_client_byte_for_byte(
    client: httpx.AsyncClient, control: httpx.AsyncClient, path: str, raw: bytes
) -> None:
    await control.put(path.replace("/state", "/raw"), content=raw)
    shown = (await client.get(path)).content
    await control.delete(path.replace("/state", "/raw"))

    assert shown == raw
    assert (await client.get(path)).json()["status"] == "running"


async def test_a_pushed_change_does_not_wait_for_the_interval(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm, path: str
) -> None:
    await control.patch("/settings", json={"time_scale": 1000})
    async with streaming(client, path) as source:
        events = source.aiter_sse()
        assert (await anext(events)).json()["status"] == "running"
        await control.patch(f"/cvms/{cvm.vm_uuid}", json={"status": "stopped", "push": True})
        assert (await anext(events)).json()["status"] == "stopped"
        await control.patch("/settings", json={"instant": True})
        await control.patch(f"/cvms/{cvm.vm_uuid}", json={"status": "starting"})
        assert (await anext(events)).json()["status"] == "starting"


@pytest.mark.parametrize(
    ("route", "request_of"),
    [
        ("state", ("GET", "/cvms/web-1/state", None)),
        ("stream", ("GET", "/cvms/web-1/state?target=x", None)),
        ("batch", ("POST", "/status/batch", {"vm_uuids": []})),
        ("list", ("GET", "/cvms/paginated", None)),
        ("details", ("GET", "/cvms/web-1", None)),
    ],
)
async def test_the_next_answers_of_a_route_are_the_fault(
    client: httpx.AsyncClient, control: httpx.AsyncClient, route: str, request_of: tuple[str, str, Any]
) -> None:
    method, url, body = request_of
    fault = {"route": route, "times": 2, "status": 429, "headers": {"Retry-After": "7"}}
    made = (await control.post("/faults", json=fault)).json()
    answers = [await client.request(method, url, json=body) for _ in range(2)]
    await control.delete(f"/faults/{made['id']}")

    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(429, "7")] * 2
    assert answers[0].json() == {"detail": "Too Many Requests"}
    assert (await control.get("/faults")).json() == {"items": []}


async def test_an_app_gets_as_many_replicas_as_are_asked_for(
    client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm
) -> None:
    items = (await control.put(f"/apps/{cvm.name}/replicas", json={"replicas": 3})).json()["items"]
    assert [item["status"] for item in items] == [cvm.status, "starting", "starting"]
    assert (await client.get(f"/cvms/app_{cvm.app_id}/state")).status_code == 409
    fewer = (await control.put(f"/apps/app_{cvm.app_id}/replicas", json={"replicas": 1})).json()["items"]
    assert [item["vm_uuid"] for item in fewer] == [cvm.vm_uuid]
    assert (await control.put("/apps/nobody/replicas", json={"replicas": 1})).status_code == 404
    assert (await control.put(f"/apps/{cvm.name}/replicas", json={"replicas": -1})).status_code == 422


async def test_a_fault_for_one_cvm_leaves_the_others_alone(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm
) -> None:
    await control.post("/faults", json={"route": "*", "cvm": cvm.name, "times": None, "status": 502, "body": "<p>"})
    other = sim.simulator.world.cvms[1]
    bad, good = [await client.get(f"/cvms/{ref}/state") for ref in (cvm.app_id, other.vm_uuid)]

    assert (bad.status_code, bad.text, good.status_code) == (502, "<p>", 200)
    assert (await control.get("/faults")).json()["items"][0]["hits"] == 1


async def test_a_stalled_stream_counts_until_its_client_goes(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, path: str
) -> None:
    await control.post("/faults", json={"route": "stream", "times": None, "delay": 60})
    with pytest.raises(httpx.ReadTimeout):
        await client.get(path, params={"target": "x"}, timeout=0.2)
    assert sim.simulator.quota.users["alice"].opened == 1
    await settled(sim, 0)


async def test_a_delayed_answer_is_the_true_one(
    client: httpx.AsyncClient, control: httpx.AsyncClient, path: str
) -> None:
    await control.post("/faults", json={"route": "state", "delay": 0.05})
    started = time.monotonic()

    assert (await client.get(path)).json()["status"] == "running"
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("route", ["state", "stream"])
async def test_a_connection_can_be_reset_before_its_headers(
    client: httpx.AsyncClient, control: httpx.AsyncClient, path: str, route: str
) -> None:
    await control.post("/faults", json={"route": route, "action": "reset"})
    with pytest.raises(httpx.ReadError):
        await client.get(path, params={"target": "x"} if route == "stream" else None)
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("route", ["state", "stream"])
async def test_a_hanging_answer_ends_with_its_client(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, path: str, route: str
) -> None:
    await control.post("/faults", json={"route": route, "action": "hang"})
    with pytest.raises(httpx.ReadTimeout):
        await client.get(path, params={"target": "x"} if route == "stream" else None, timeout=0.1)
    await settled(sim, 0)


@pytest.mark.parametrize(
    ("how", "error"), [("reset", httpx.ReadError), ("close", httpx.RemoteProtocolError), ("end", None)]
)
async def test_open_streams_can_be_cut_in_each_way(
    sim: Running,
    client: httpx.AsyncClient,
    control: httpx.AsyncClient,
    path: str,
    how: str,
    error: type[Exception] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with streaming(client, path) as source:
        events = source.aiter_sse()
        await anext(events)
        cut = await control.post("/streams/cut", json={"how": how})
        expected = pytest.raises(error) if error else contextlib.nullcontext()
        with expected:
            assert [event async for event in events if event.event != "state"] == []
    await settled(sim, 0)

    assert cut.json() == {"cut": 1}
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_stream_can_end_at_once_and_empty(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, path: str
) -> None:
    await control.post("/faults", json={"route": "stream", "action": "end"})
    async with streaming(client, path) as source:
        assert [event async for event in source.aiter_sse()] == []
    assert sim.simulator.quota.cvms[path.split("/")[2]].opened == 1


@pytest.mark.parametrize(("action", "first"), [("silent", 0), ("mute", 1)])
async def test_a_silent_stream_sends_nothing_while_the_state_route_shows_the_change(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, path: str, action: str, first: int
) -> None:
    await control.post("/faults", json={"route": "stream", "action": action})
    got: list[ServerSentEvent] = []
    async with streaming(client, path, timeout=10) as source:
        listening = asyncio.create_task(_collect(source, got))
        await control.patch(path.removesuffix("/state"), json={"status": "stopped", "push": True})
        shown = (await client.get(path)).json()["status"]
        # Its timeout comes: the place is free, and the client hears nothing of it.
        await until(lambda: sim.simulator.quota.held("alice") == 0)
        still = len(sim.simulator.quota.streams())
        listening.cancel()
        await asyncio.wait({listening})

    assert (shown, len(got), still) == ("stopped", first, 1)
    await settled(sim, 0)


async def _collect(source: EventSource, got: list[ServerSentEvent]) -> None:
    async for event in source.aiter_sse():
        got.append(event)  # noqa: PERF401 - the test looks at it before the end


async def test_an_open_stream_can_be_silenced_and_resumed(
    client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm, path: str
) -> None:
    async with streaming(client, path) as source:
        events = source.aiter_sse()
        await anext(events)
        await control.post("/streams/silence", json={"cvm": cvm.name, "silent": True})
        await control.patch(path.removesuffix("/state"), json={"status": "stopped", "push": True})
        silent = (await control.get("/streams")).json()["items"][0]["silent"]
        await control.post("/streams/silence", json={"silent": False})
        while (await anext(events)).json()["status"] != "stopped":
            pass
    assert silent is True


async def test_bytes_are_sent_verbatim_on_open_streams(
    client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm, path: str
) -> None:
    piece = b": \xff\x00\r\rdata\n" + b"y" * 1_000_000
    async with client.stream("GET", path, params={"target": "deleted"}) as response:
        sent = await control.post("/streams/send", params={"cvm": cvm.vm_uuid}, content=piece)
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if piece in body:
                break
    assert sent.json() == {"sent": 1}


@pytest.mark.parametrize(("line_end", "raw"), [("LF", b"\n"), ("CRLF", b"\r\n"), ("CR", b"\r")])
@pytest.mark.parametrize("one_byte", [False, True])
async def test_streams_come_with_each_line_end_and_byte_by_byte(
    client: httpx.AsyncClient, control: httpx.AsyncClient, path: str, line_end: str, raw: bytes, one_byte: bool
) -> None:
    await control.patch("/settings", json={"line_end": line_end, "one_byte": one_byte})
    body = await client.get(path, params={"target": "running"})
    lines = body.content.split(raw)

    assert [line[:7] for line in lines] == [b"event: ", b"data: {", b"", b"event: ", b"data: {", b"", b""]
    assert json.loads(lines[1][6:])["status"] == "running"


async def test_a_target_can_be_refused(client: httpx.AsyncClient, control: httpx.AsyncClient, path: str) -> None:
    await control.patch("/settings", json={"refuse_targets": ["deleted"]})
    refused = await client.get(path, params={"target": "deleted"})

    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["query", "target"])
    assert (await client.get(path, params={"target": "running"})).status_code == 200


async def test_a_batch_can_miss_cvms_and_use_other_words(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm
) -> None:
    other = sim.simulator.world.cvms[1].vm_uuid
    await control.patch("/settings", json={"batch_missing": [cvm.name], "batch_words": {"running": "Up"}})
    answer = await client.post("/status/batch", json={"vm_uuids": [cvm.vm_uuid, other]})

    assert {uuid: status["status"] for uuid, status in answer.json().items()} == {other: "Up"}


async def test_a_closed_connection_can_count_for_a_while(
    sim: Running, client: httpx.AsyncClient, control: httpx.AsyncClient, path: str
) -> None:
    await control.patch("/settings", json={"late_notice": 60, "limit": 1})
    async with streaming(client, path):
        pass
    await settled(sim, 0)

    assert (await client.get(path, params={"target": "x"})).status_code == 429


async def test_streams_of_a_user_can_be_occupied(
    client: httpx.AsyncClient, control: httpx.AsyncClient, path: str
) -> None:
    await control.put("/users/alice", json={"occupied": 5})
    refused = await client.get(path, params={"target": "running"})
    await control.put("/users/alice", json={"occupied": 4})
    served = await client.get(path, params={"target": "running"})

    assert (refused.status_code, served.status_code) == (429, 200)


async def test_counters_show_the_requests_and_can_be_reset(
    client: httpx.AsyncClient, control: httpx.AsyncClient, cvm: Cvm, path: str
) -> None:
    await client.get(path)
    await client.get(path, params={"interval": 1})
    await client.get(f"{path}?target=running")
    before = (await control.get("/counters")).json()
    view = (await control.get(f"/cvms/{cvm.name}")).json()
    await control.delete("/counters")
    after = (await control.get("/counters")).json()

    assert before["requests"] == {"state": 2, "stream": 1}
    assert before["responses"] == {"state": {"200": 1, "422": 1}, "stream": {"200": 1}}
    assert [(visit["route"], visit["user"], visit["status"]) for visit in before["recent"]][2] == (
        "stream",
        "alice",
        200,
    )
    assert (view["requests"], view["streams"]) == (3, {"open": 0, "max": 1, "opened": 1})
    assert after == {"requests": {}, "responses": {}, "recent": []}


@pytest.mark.parametrize(
    ("method", "url", "body", "status"),
    [
        ("PATCH", "/settings", {"time_scale": 0}, 422),
        ("PATCH", "/settings", {"unknown": 1}, 422),
        ("POST", "/faults", {"route": "state", "action": "mute"}, 422),
        ("POST", "/faults", {"route": "state", "cvm": "nobody", "status": 500}, 404),
        ("POST", "/cvms", {"colour": "red"}, 422),
        ("PATCH", "/cvms/nobody", {"status": "x"}, 404),
        ("POST", "/streams/cut", {"how": "gently"}, 422),
        ("DELETE", "/faults/99", None, 404),
    ],
)
async def test_a_wrong_control_call_is_refused(
    control: httpx.AsyncClient, method: str, url: str, body: Any, status: int
) -> None:
    answer = await control.request(method, url, json=body)

    assert (answer.status_code, "detail" in answer.json()) == (status, True)
