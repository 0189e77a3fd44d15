"""The drop-in compared with upstream: a bridge on a simulator, and a simulator with the same seed alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import cast

import pytest
from phala_cloud import AsyncPhalaCloud, AuthError, PhalaCloud, ResourceError

from bridge.store.watches import Watches
from tests.bridges import whole
from tests.real.dropins import KEY, Event, alone, both, recorded, until_subscribed
from tests.real.fronts import Front, front
from tests.servers import PATIENCE, RealServer

TOKENS = "root:rootsecret:admin one:onesecret:read:0000000a-0000-4000-8000-000000000000"


WATCHED = (
    "/cvms/{0}/state?target=running",
    "/cvms/{0}/state?target=stopped",
    "/cvms/{0}/state?interval=30&timeout=600&target=stopped",
    "/cvms/{0}/state?target=starting&interval=5&timeout=600",
    "/cvms/{1}/state?target=never&timeout=10",
    "/cvms/{1}/state?target=never&timeout=10&interval=8",
    "/cvms/{1}/state?target=&timeout=10",
    "/cvms/{1}/state?target=%E2%80%A8%00%FF%22&timeout=10&interval=30",
    "/cvms/{2}/state?target=stopped",
    "/cvms/{2}/state?target=deleted&interval=30",
)


async def test_clients_get_the_same_from_the_bridge_as_from_the_simulator_alone(redis_url: str) -> None:
    """At most ten seconds, as long as upstream's shortest `timeout`."""
    async with whole(redis_url, cvms=3, time_scale=1.0) as bridge, alone(3) as sim:
        await bridge.until_seen(3)
        paths = [path.format(*bridge.ids) for path in WATCHED]
        async with asyncio.TaskGroup() as group:
            ours = [group.create_task(recorded(f"{bridge.url}/api/v1", path)) for path in paths]
            its = [group.create_task(recorded(sim.api_prefix, path)) for path in paths]
            await asyncio.sleep(1.5)
            await both(bridge, sim, "PATCH", f"/cvms/{bridge.ids[0]}", {"status": "stopping"})
            await asyncio.sleep(1)
            await both(bridge, sim, "PATCH", f"/cvms/{bridge.ids[0]}", {"set": {"shutdown_progress": "halfway"}})
            await both(bridge, sim, "DELETE", f"/cvms/{bridge.ids[2]}?push=1")
            await asyncio.sleep(4)
            await both(bridge, sim, "PATCH", f"/cvms/{bridge.ids[0]}", {"status": "stopped"})
            await asyncio.sleep(1)
            await both(bridge, sim, "PATCH", f"/cvms/{bridge.ids[0]}", {"status": "starting"})
        for path, mine, theirs in zip(paths, ours, its, strict=True):
            assert mine.result() == theirs.result(), path
        assert bridge.sim.simulator.quota.users["demo"].max <= 5


async def test_the_python_sdk_watches_24_at_once(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        (cvm,) = bridge.sim.simulator.world.cvms
        request = {"id": cvm.name, "target": "stopped", "maxRetries": 0}
        async with AsyncPhalaCloud(api_key="any", base_url=f"{bridge.url}/api/v1") as sdk:
            with PhalaCloud(api_key="any", base_url=f"{bridge.url}/api/v1") as sync_sdk, ThreadPoolExecutor(12) as pool:
                threads = asyncio.get_running_loop().run_in_executor
                watching = [asyncio.ensure_future(sdk.watch_cvm_state(request)) for _ in range(12)]
                watching += [threads(pool, sync_sdk.watch_cvm_state, request) for _ in range(12)]
                await until_subscribed(bridge, 24)
                await bridge.patch(cvm.vm_uuid, status="stopped")
                for result in await asyncio.gather(*watching):
                    assert (result.status, result.target) == ("stopped", "stopped")
        assert bridge.sim.simulator.quota.users["demo"].max == 1
        await until_subscribed(bridge, 0)


async def test_the_python_sdk_reads_states_and_meets_upstreams_errors(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        (cvm,) = bridge.sim.simulator.world.cvms
        forms = [
            {"uuid": cvm.vm_uuid},
            {"id": cvm.cvm_id},
            {"app_id": f"app_{cvm.app_id}"},
            {"instance_id": cvm.instance_id},
            {"cvm_id": cvm.name},
        ]
        async with AsyncPhalaCloud(api_key="any", base_url=f"{bridge.url}/api/v1") as sdk:
            with PhalaCloud(api_key="any", base_url=f"{bridge.url}/api/v1") as sync_sdk:
                states = [await sdk.get_cvm_state(form) for form in forms]
                states += [await asyncio.to_thread(sync_sdk.get_cvm_state, form) for form in forms]
            with pytest.raises(ResourceError) as missing:
                await sdk.get_cvm_state({"id": "nobody"})
            bridge.sim.simulator.world.create(name="twice")
            bridge.sim.simulator.world.create(name="twice")
            with pytest.raises(ResourceError) as shared:
                await sdk.get_cvm_state({"id": "twice"})
        assert [(state.id, state.status) for state in states] == [(cvm.vm_uuid, "running")] * 10
        assert (missing.value.status_code, missing.value.error_code) == (404, "ERR-03-001")
        assert (shared.value.status_code, shared.value.error_code) == (409, "ERR-03-002")


RAW_PATHS = (
    "/cvms/{0}/state?interval=4&timeout=x",
    "/cvms/nobody/state",
    "/cvms/nobody/state?target=running",
    "/cvms/nobody/state?target=running&interval=31",
    "/cvms/%00/state",
    "/cvms/%0A%0D%7F/state?target=running",
    "/cvms/%FF%FE/state",
    "/cvms/%E2%80%A8/state",
    "/cvms/../state",
    "/cvms/%2E/state",
    "/cvms/%22%3Cscript%3E/state",
    "/cvms/{{}}/state",
    "/cvms/%F0%9F%92%A9/state",
    "/cvms/%20/state",
    f"/cvms/{'x' * 300}/state",
)


async def test_odd_references_and_queries_get_upstreams_answers(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        for path in [path.format(*bridge.ids) for path in RAW_PATHS]:
            ours, its = await raw_get(bridge.url, path), await raw_get(bridge.sim.url, path)
            assert ours == its, path
        for method in ("HEAD", "POST", "DELETE"):
            answer = await bridge.http.request(method, f"{bridge.url}/api/v1/cvms/{bridge.ids[0]}/state")
            direct = await bridge.http.request(method, f"{bridge.sim.api_prefix}/cvms/{bridge.ids[0]}/state")
            assert (answer.status_code, answer.content) == (direct.status_code, direct.content)
            assert answer.headers["allow"] == "GET"


async def raw_get(url: str, path: str) -> tuple[int, bytes]:
    """Status and body of a request whose path no client library has changed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(
        f"GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: any\r\nConnection: close\r\n\r\n".encode()
    )
    async with asyncio.timeout(PATIENCE):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_other_routes_are_404_and_name_what_the_drop_in_covers(redis_url: str) -> None:
    async with front(redis_url) as web:
        for method, path in (("GET", "/users/me"), ("POST", "/cvms"), ("GET", "/"), ("DELETE", "/cvms/a/state/b")):
            answer = await web.http.request(method, f"{web.url}/api/v1{path}", headers=KEY)
            assert answer.status_code == 404
            assert "GET /api/v1/cvms/{cvm_id}/state" in answer.json()["detail"]


async def test_many_callers_of_an_unwatched_cvm_cost_upstream_one_look_up(redis_url: str) -> None:
    async with whole(redis_url, cvms=2, settings={"cvms": ()}) as bridge:
        cvm = bridge.sim.simulator.world.cvms[1]
        url = f"{bridge.url}/api/v1/cvms/{cvm.name}/state"
        answers = await asyncio.gather(*[bridge.http.get(url) for _ in range(30)])
        for answer in answers:
            assert (answer.status_code, answer.json()["id"]) == (200, cvm.vm_uuid)
            assert int(answer.headers["age"]) < 10
        # One look-up and one observation; a list request may have come too.
        assert bridge.sim.simulator.counters.requests["state"] <= 3
        assert list((await Watches(bridge.backend).survey()).watches) == [cvm.vm_uuid]


async def test_the_state_is_verbatim(redis_url: str) -> None:
    raw = '{"id":"ID","name":"\\u2028ü","status":"running","n":1.10,"big":123456789012345678901234567890,"none":null}'
    async with whole(redis_url, cvms=1) as bridge:
        cvm_id = bridge.ids[0]
        await bridge.until_seen(1)
        raw = raw.replace("ID", cvm_id)
        await bridge.control("PUT", f"/cvms/{cvm_id}/raw", content=raw.encode())

        async def read() -> bool:
            answer = await bridge.http.get(f"{bridge.url}/api/v1/cvms/{cvm_id}/state")
            return answer.text == raw

        await bridge.until(read, "the raw state")
        stream = await bridge.http.get(f"{bridge.url}/api/v1/cvms/{cvm_id}/state?target=running")
        assert stream.text.startswith(f"event: state\ndata: {raw}\n\nevent: complete\n")


async def test_a_deleted_cvm_gets_upstreams_own_404_in_both_modes(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        (cvm,) = bridge.sim.simulator.world.cvms
        for ref in (cvm.name, cvm.vm_uuid):
            assert (await bridge.http.get(f"{bridge.url}/api/v1/cvms/{ref}/state")).status_code == 200
        await bridge.control("DELETE", f"/cvms/{cvm.vm_uuid}?push=1")

        async def deleted() -> bool:
            return (await bridge.log())[-1].type == "cvm.transition"

        await bridge.until(deleted, "the deletion")
        for path in (f"/cvms/{cvm.name}/state", f"/cvms/{cvm.vm_uuid}/state?target=running"):
            answer = await bridge.http.get(f"{bridge.url}/api/v1{path}")
            direct = await bridge.http.get(f"{bridge.sim.api_prefix}{path}", headers=KEY)
            assert (answer.status_code, answer.content) == (404, direct.content)


@pytest.mark.parametrize(("status", "passed"), [(403, 403), (409, 409), (422, 422), (429, 429), (401, 503), (500, 503)])
async def test_upstreams_errors_about_a_reference_are_passed_on(redis_url: str, status: int, passed: int) -> None:
    """Except a 401, which concerns the bridge's key, and errors that only show that upstream has a problem."""
    async with whole(redis_url, cvms=1, settings={"cvms": ()}) as bridge:
        await bridge.control("POST", "/faults", json={"route": "state", "status": status, "times": None})
        path = f"/cvms/{bridge.ids[0]}/state"
        answer = await bridge.http.get(f"{bridge.url}/api/v1{path}")
        direct = await bridge.http.get(f"{bridge.sim.api_prefix}{path}", headers=KEY)
        assert (answer.status_code, direct.status_code) == (passed, status)
        if passed == status:
            assert answer.content == direct.content
        else:
            assert "cannot vouch" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "5"


async def test_a_name_that_moved_to_another_cvm_is_followed(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        (cvm,) = bridge.sim.simulator.world.cvms
        url = f"{bridge.url}/api/v1/cvms/{cvm.name}/state"
        assert (await bridge.http.get(url)).json()["id"] == cvm.vm_uuid
        await bridge.control("DELETE", f"/cvms/{cvm.vm_uuid}?push=1")
        created = bridge.sim.simulator.world.create(name=cvm.name)

        async def deleted() -> bool:
            return any(event.type == "cvm.transition" for event in await bridge.log())

        await bridge.until(deleted, "the deletion")
        assert (await bridge.http.get(url)).json()["id"] == created.vm_uuid


async def test_a_stale_state_is_503_with_its_reason_and_an_error_event_in_a_stream(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await Watches(web.backend).want("cvm-1")
        await web.append()  # observed long ago, and no leader ticks
        url = f"{web.url}/api/v1/cvms/cvm-1/state"
        answer = await web.http.get(url)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "no_leader" in answer.json()["detail"]
        async with (
            web.http.stream("GET", f"{url}?target=running") as stream,
            aclosing(cast(AsyncGenerator[str, None], stream.aiter_lines())) as lines,
        ):
            assert await anext(lines) == "event: error"
            assert "no_leader" in await anext(lines)
        await web.until_present(0)


async def test_a_missing_token_is_refused_in_upstreams_shape(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await Watches(web.backend).want("cvm-1")
        url = f"{web.url}/api/v1/cvms/cvm-1/state"
        for path in (url, f"{url}?target=running"):
            for key, status, detail in (
                (None, 401, "Not authenticated"),
                ("wrong", 401, "Invalid API key"),
                ("onesecret", 403, "This token does not allow this: it may not see this CVM"),
            ):
                answer = await web.http.get(path, headers={"X-API-Key": key} if key else {})
                assert (answer.status_code, answer.json()) == (status, {"detail": detail})
        async with AsyncPhalaCloud(api_key="wrong", base_url=f"{web.url}/api/v1") as sdk:
            with pytest.raises(AuthError):
                await sdk.get_cvm_state({"id": "cvm-1"})


async def test_a_redis_that_is_away_is_503_in_upstreams_shape(own_server: RealServer) -> None:
    async with front(own_server.url) as web:
        own_server.kill()
        for query in ("", "?target=running"):
            answer = await web.http.get(f"{web.url}/api/v1/cvms/cvm-1/state{query}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json() == {"detail": "The bridge cannot use Redis just now"}


async def test_watchers_count_as_subscribers(redis_url: str) -> None:
    async with front(redis_url, max_subscribers=1) as web:
        await Watches(web.backend).want("cvm-1")
        path = "/api/v1/cvms/cvm-1/state?target=running"
        _, writer = await web.connect(path)
        await until_subscribed(web, 1)
        refused = await web.http.get(f"{web.url}{path}")
        assert refused.status_code == 503
        assert 10 <= int(refused.headers["retry-after"]) <= 20
        assert refused.json() == {"detail": "This front end takes no more streams: its limit is 1"}
        assert (await web.http.get(f"{web.url}/v1/events")).status_code == 503
        writer.close()
        await until_subscribed(web, 0)
        await until_demanded(web, {})


async def until_demanded(web: Front, demand: dict[str, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await Watches(web.backend).survey()).demand != demand:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stop_makes_every_client_ask_again(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        watching = asyncio.create_task(recorded(f"{bridge.url}/api/v1", f"/cvms/{bridge.ids[0]}/state?target=stopped"))
        await until_subscribed(bridge, 1)
    events = await watching
    assert [name for name, _ in events] == ["state", "timeout"]
    assert events[1][1]["target"] == "stopped"


async def test_a_client_that_reads_as_the_go_client_gets_all_events(redis_url: str) -> None:
    """As the Go client reads: its query and headers, line by line, until the first of three event names."""
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        await bridge.until_streamed(1)
        cvm_id = bridge.ids[0]
        channel: asyncio.Queue[Event | None] = asyncio.Queue(16)
        watching = asyncio.create_task(go_watch(bridge.url, cvm_id, "stopped", channel))
        assert (await channel.get() or ("", {}))[1]["status"] == "running"
        await bridge.patch(cvm_id, status="stopping")
        await bridge.patch(cvm_id, status="stopped")
        names = []
        while (event := await channel.get()) is not None:
            names.append((event[0], event[1]["status"]))
        assert names == [("state", "stopping"), ("state", "stopped"), ("complete", "stopped")]
        await watching
        vanishing = asyncio.create_task(go_watch(bridge.url, cvm_id, "running", channel))
        await channel.get()
        vanishing.cancel()
        await until_subscribed(bridge, 0)
        await asyncio.wait([vanishing])


async def go_watch(url: str, cvm_id: str, target: str, channel: asyncio.Queue[Event | None]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        writer.write(
            f"GET /api/v1/cvms/{cvm_id}/state?interval=5&timeout=60&target={target} HTTP/1.1\r\nHost: localhost\r\n"
            "User-Agent: phala-cloud-sdk-go\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n"
            "X-Api-Key: any\r\nX-Phala-Version: 2026-06-23\r\nAccept-Encoding: gzip\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"transfer-encoding: chunked\r\n" in head.lower()
        assert b"connection: close\r\n" in head.lower()
        name, data = "", ""
        async for line in chunked_lines(reader):
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data = line[5:].strip()
            elif line == "":
                await channel.put((name, json.loads(data)))
                if name in ("complete", "error", "timeout"):
                    break
        await channel.put(None)
    finally:
        writer.close()


async def chunked_lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while size := int(await reader.readline(), 16):
        rest += await reader.readexactly(size)
        await reader.readline()
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line.decode()
