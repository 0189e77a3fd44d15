"""The simulated Phala Cloud on real sockets: the routes that upstream.md tells of, with real HTTP and SSE clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, aconnect_sse

from bridge.simulator.server import Running, run_simulator, serve
from bridge.simulator.world import World
from tests.real.waiting import until

KEYS = {"key-a": "alice", "key-a2": "alice", "key-b": "bob"}


@pytest.fixture
async def sim() -> AsyncIterator[Running]:
    """Three CVMs that do nothing by themselves; five seconds take 0.1."""
    world = World(seed=7, cvms=3, frozen=True)
    async with serve(world=world, keys=KEYS, time_scale=0.02) as running:
        yield running


@pytest.fixture
async def client(sim: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"X-API-Key": "key-a"}
    async with httpx.AsyncClient(base_url=sim.api_prefix, headers=headers, trust_env=False) as client:
        yield client


def uuid_of(sim: Running, number: int = 0) -> str:
    return sim.simulator.world.cvms[number].vm_uuid


def state_path(sim: Running, number: int = 0) -> str:
    return f"/cvms/{uuid_of(sim, number)}/state"


async def heard(client: httpx.AsyncClient, path: str, **params: Any) -> list[tuple[str, Any]]:
    """All events of a stream up to the end of its body."""
    async with aconnect_sse(client, "GET", path, params=params) as source:
        return [(event.event, json.loads(event.data)) async for event in source.aiter_sse()]


@contextlib.asynccontextmanager
async def streaming(client: httpx.AsyncClient, path: str, **more: Any) -> AsyncIterator[EventSource]:
    """An open stream: its 200 has arrived."""
    async with aconnect_sse(client, "GET", path, params={"target": "deleted", "timeout": 600}, **more) as source:
        assert source.response.status_code == 200
        yield source


async def until_open(sim: Running, count: int) -> None:
    """Returns once so many streams are open."""
    await until(lambda: len(sim.simulator.quota.streams()) == count)


async def test_immediate_mode_answers_the_state_now(sim: Running, client: httpx.AsyncClient) -> None:
    answer = await client.get(state_path(sim))
    cvm = sim.simulator.world.cvms[0]

    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"id", "instance_id", "name", "status", "uptime"}
    assert (answer.json()["id"], answer.json()["status"]) == (cvm.vm_uuid, "running")


async def test_a_stream_sends_the_state_at_each_interval_until_its_timeout(
    sim: Running, client: httpx.AsyncClient
) -> None:
    events = await heard(client, state_path(sim), target="deleted", interval="5", timeout="20")

    *names, last = [event for event, _ in events]
    assert last == "timeout"
    # Looks that a busy machine missed are left out; tests/unit/simulator/test_streams.py counts them on a clock.
    assert names == ["state"] * min(max(len(names), 1), 4)
    assert events[-1][1].keys() == {"error", "elapsed", "target"}
    assert events[-1][1]["elapsed"] >= 20


async def test_a_target_already_met_completes_at_once(sim: Running, client: httpx.AsyncClient) -> None:
    events = await heard(client, state_path(sim), target="running")

    assert [event for event, _ in events] == ["state", "complete"]
    assert events[1][1]["status"] == events[1][1]["target"] == "running"


async def test_reaching_the_target_completes_the_stream(sim: Running, client: httpx.AsyncClient) -> None:
    listening = asyncio.create_task(heard(client, state_path(sim), target="stopped"))
    await until_open(sim, 1)
    await client.patch(f"{sim.control}/cvms/{uuid_of(sim)}", json={"status": "stopped"})
    events = await listening

    assert [event for event, _ in events][-2:] == ["state", "complete"]
    assert {state["status"] for event, state in events[:-2]} == {"running"}


async def test_a_deleted_cvm_ends_its_stream_with_an_error(sim: Running, client: httpx.AsyncClient) -> None:
    listening = asyncio.create_task(heard(client, state_path(sim), target="deleted"))
    await until_open(sim, 1)
    path = state_path(sim)
    await client.delete(f"{sim.control}/cvms/{uuid_of(sim)}")

    assert (await listening)[-1][0] == "error"
    assert (await client.get(path)).json()["error_code"] == "ERR-03-001"


async def test_the_sixth_stream_of_a_user_is_refused_with_any_of_its_keys(
    sim: Running, client: httpx.AsyncClient
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(streaming(client, state_path(sim, number % 3)))
        params = {"target": "deleted"}
        sixth = await client.get(state_path(sim), params=params, headers={"X-API-Key": "key-a2"})
        plain = await client.get(state_path(sim))
        await stack.enter_async_context(streaming(client, state_path(sim), headers={"X-API-Key": "key-b"}))
        users = (await client.get(f"{sim.control}/streams")).json()["users"]

    assert (sixth.status_code, plain.status_code) == (429, 200)
    assert users["alice"] == {"open": 5, "max": 5, "opened": 5, "refused": 1, "occupied": 0}
    assert users["bob"]["open"] == 1


async def test_exactly_five_of_many_simultaneous_streams_open(sim: Running, client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(_status_of_stream(client, state_path(sim)) for _ in range(40)))

    assert sorted(answers) == [200] * 5 + [429] * 35
    assert sim.simulator.quota.users["alice"].max == 5


async def _status_of_stream(client: httpx.AsyncClient, path: str) -> int:
    async with client.stream("GET", path, params={"target": "deleted", "timeout": 20}) as response:
        async for _ in response.aiter_bytes():
            pass
        return response.status_code


async def test_a_client_that_goes_away_frees_its_stream(sim: Running, client: httpx.AsyncClient) -> None:
    for _ in range(20):
        async with contextlib.AsyncExitStack() as stack:
            for number in range(5):
                await stack.enter_async_context(streaming(client, state_path(sim, number % 3)))
        await until_open(sim, 0)

    assert sim.simulator.quota.users["alice"].refused == 0


async def test_a_stream_is_freed_before_its_client_sees_the_end(sim: Running, client: httpx.AsyncClient) -> None:
    for _ in range(30):
        events = await asyncio.gather(*(heard(client, state_path(sim), target="running") for _ in range(5)))
        assert [len(one) for one in events] == [2] * 5

    assert sim.simulator.quota.users["alice"].refused == 0


@pytest.mark.parametrize(
    ("query", "kind", "field"),
    [
        ("interval=4", "greater_than_equal", "interval"),
        ("interval=31", "less_than_equal", "interval"),
        ("timeout=9&target=running", "greater_than_equal", "timeout"),
        ("timeout=601", "less_than_equal", "timeout"),
        ("interval=five", "int_parsing", "interval"),
    ],
)
async def test_a_parameter_out_of_bounds_is_a_422_that_names_it(
    sim: Running, client: httpx.AsyncClient, query: str, kind: str, field: str
) -> None:
    answer = await client.get(f"{state_path(sim)}?{query}")

    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert (fault["type"], fault["loc"]) == (kind, ["query", field])


async def test_without_a_known_key_every_route_is_401(sim: Running) -> None:
    async with httpx.AsyncClient(base_url=sim.api_prefix, trust_env=False) as client:
        paths = [state_path(sim), f"{state_path(sim)}?interval=1", "/cvms/paginated", f"/cvms/{uuid_of(sim)}"]
        answers = [await client.get(path) for path in paths]
        answers.append(await client.get(state_path(sim), headers={"X-API-Key": "wrong"}))
        answers.append(await client.get(state_path(sim), headers={"Authorization": "Bearer key-a"}))
        answers.append(await client.post("/status/batch", json={"vm_uuids": []}))

    assert [answer.status_code for answer in answers] == [401] * 7
    assert all("detail" in answer.json() for answer in answers)


async def test_every_form_of_reference_reads_the_same_cvm(sim: Running, client: httpx.AsyncClient) -> None:
    cvm = sim.simulator.world.cvms[1]
    forms = [cvm.vm_uuid, cvm.vm_uuid.replace("-", ""), cvm.cvm_id, f"app_{cvm.app_id}", cvm.app_id]
    answers = [await client.get(f"/cvms/{form}/state") for form in [*forms, cvm.instance_id, cvm.name]]

    assert [answer.json()["id"] for answer in answers] == [cvm.vm_uuid] * 7


async def test_an_unknown_reference_is_a_404_and_a_shared_one_a_409(sim: Running, client: httpx.AsyncClient) -> None:
    sim.simulator.world.create(name="same", app_id="ab" * 20)
    sim.simulator.world.create(name="same", app_id="ab" * 20)
    answers = [await client.get(f"/cvms/{ref}/state?target=x") for ref in ("nobody", "same", "ab" * 20)]

    assert [(answer.status_code, answer.json()["error_code"]) for answer in answers] == [
        (404, "ERR-03-001"),
        (409, "ERR-03-002"),
        (409, "ERR-03-010"),
    ]


async def test_another_users_cvm_is_not_found(sim: Running, client: httpx.AsyncClient) -> None:
    cvm = sim.simulator.world.create(owner="bob")
    mine = await client.get(f"/cvms/{cvm.vm_uuid}/state")
    his = await client.get(f"/cvms/{cvm.vm_uuid}/state", headers={"X-API-Key": "key-b"})

    assert (mine.status_code, his.status_code) == (404, 200)


async def test_a_batch_answers_for_known_cvms(sim: Running, client: httpx.AsyncClient) -> None:
    bare = uuid_of(sim, 1).replace("-", "")
    answer = await client.post("/status/batch", json={"vm_uuids": [uuid_of(sim), bare, "unknown"]})

    assert answer.json().keys() == {uuid_of(sim), bare}
    status = answer.json()[bare]
    assert (status["vm_uuid"], status["status"], status["in_progress"]) == (uuid_of(sim, 1), "running", False)


async def test_the_list_has_the_shape_that_the_version_asks_for(sim: Running, client: httpx.AsyncClient) -> None:
    sim.simulator.world.create(status="provisioning")
    older = (await client.get("/cvms/paginated")).json()
    newer = (await client.get("/cvms/paginated", headers={"X-Phala-Version": "2026-06-23"})).json()

    assert [item["hosted"]["id"] for item in older["items"][:3]] == [uuid_of(sim, number) for number in range(3)]
    assert all(item["id"].startswith("cvm_") for item in newer["items"])
    assert newer["items"][0]["vm_uuid"] == uuid_of(sim)
    assert (newer["items"][3]["vm_uuid"], newer["items"][3]["in_progress"]) == (None, True)


async def test_the_list_comes_in_pages(sim: Running, client: httpx.AsyncClient) -> None:
    pages = [(await client.get("/cvms/paginated", params={"page": page, "page_size": 2})).json() for page in (1, 2, 3)]
    wrong = await client.get("/cvms/paginated", params={"page": 0, "page_size": 101})

    assert [len(page["items"]) for page in pages] == [2, 1, 0]
    assert {(page["total"], page["page_size"], page["pages"]) for page in pages} == {(3, 2, 2)}
    assert wrong.status_code == 422
    assert [fault["loc"][1] for fault in wrong.json()["detail"]] == ["page", "page_size"]


async def test_details_carry_the_same_ids_in_both_shapes(sim: Running, client: httpx.AsyncClient) -> None:
    cvm = sim.simulator.world.cvms[0]
    older = (await client.get(f"/cvms/{cvm.name}")).json()
    newer = (await client.get(f"/cvms/{cvm.name}", headers={"X-Phala-Version": "2026-05-22"})).json()

    assert isinstance(older["id"], int)
    assert newer["id"] == cvm.cvm_id
    assert older["vm_uuid"] == newer["vm_uuid"] == cvm.vm_uuid


async def test_other_paths_and_methods_are_refused_as_fastapi_does(sim: Running, client: httpx.AsyncClient) -> None:
    head = await client.head(state_path(sim))
    post = await client.post(state_path(sim))
    other = await client.get("/kms")

    assert (head.status_code, post.status_code, other.status_code) == (405, 405, 404)
    assert other.json() == {"detail": "Not Found"}


async def test_the_demo_changes_by_itself() -> None:
    async with serve(seed=1, time_scale=0.005) as sim:
        headers = {"X-API-Key": "any"}
        async with httpx.AsyncClient(base_url=sim.api_prefix, headers=headers, trust_env=False) as client:
            path = state_path(sim)
            events = await heard(client, path, target="no such status", timeout="300")

    assert len({state["status"] for event, state in events if event == "state"}) >= 2


async def test_it_ends_at_once_with_streams_open(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    up: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_simulator("127.0.0.1", 0, World(frozen=True), announce=up.set_result))
    sim = await up
    headers = {"X-API-Key": "any"}
    async with contextlib.AsyncExitStack() as stack:
        base = httpx.AsyncClient(base_url=sim.api_prefix, headers=headers, trust_env=False)
        client = await stack.enter_async_context(base)
        paths = [state_path(sim, number) for number in range(5)]
        sources = [await stack.enter_async_context(streaming(client, path)) for path in paths]
        async with asyncio.timeout(5):
            running.cancel()
            ends = [[event async for event in source.aiter_sse()] for source in sources]
            await asyncio.wait({running})

    assert running.cancelled()
    assert [len(end) for end in ends] == [1] * 5
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    assert capfd.readouterr().err == ""


async def test_a_client_that_does_not_read_cannot_delay_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(10):
        async with serve(world=World(cvms=1, frozen=True)) as sim:
            _, writer = await asyncio.open_connection(sim.host, sim.port, limit=1)
            path = f"/api/v1{state_path(sim)}?target=deleted&timeout=600"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: any\r\n\r\n".encode())
            await until_open(sim, 1)
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.post(f"{sim.control}/streams/send", content=b"x" * (20 << 20))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_an_address_in_use_is_an_os_error(sim: Running) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(port=sim.port):
            pass
