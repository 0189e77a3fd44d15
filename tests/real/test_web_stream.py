"""The front end alone on real sockets and a real Redis; the test is the leader."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import aclosing

import pytest
from httpx_sse import aconnect_sse
from prometheus_client import REGISTRY

from bridge.clock import SystemClock
from bridge.store.connection import Backend
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from tests.bridges import sse
from tests.real.fronts import Front, front
from tests.servers import PATIENCE, RealServer

OWN = "0000000a-0000-4000-8000-000000000000"
TOKENS = f"root:rootsecret:admin reader:readsecret:read one:onesecret:read:{OWN}"
BROWSER = {"Accept": "text/event-stream"}


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.read(-1)


async def test_a_client_that_does_not_read_is_cut_and_the_others_see_everything(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        reader, _ = await web.connect("/v1/events?snapshot=0")
        await web.until_present(1)
        slow_before = web.metric("bridge_slow_subscribers_total")
        async with (
            aconnect_sse(web.http, "GET", f"{web.url}/v1/events?snapshot=0") as quick,
            aclosing(quick.aiter_sse()) as events,
        ):
            assert (await anext(events)).event == "position"
            await web.until_present(2)
            for _ in range(60):  # each after the one before is read, so a quick client never lags
                assert await web.append(filling=200_000) == (await anext(events)).id
        await web.until_present(0)
        assert web.metric("bridge_slow_subscribers_total") == slow_before + 1
        assert not (await rest_of(reader)).endswith(b"\r\n0\r\n\r\n")


async def test_what_waits_in_the_kernel_for_a_client_is_bounded_too(redis_url: str) -> None:
    """By itself the kernel takes more than two megabytes on loopback."""
    async with front(redis_url) as web:
        await web.lead()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", web.port))
            deaf.sendall(b"GET /v1/events?snapshot=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await web.until_present(1)
            for _ in range(20):
                await web.append(filling=50_000)
            await web.until_present(0)


async def test_a_cut_client_gets_the_missed_events_with_its_cursor(redis_url: str) -> None:
    async with front(redis_url, subscriber_buffer=1024) as web:
        await web.lead()
        ids = [await web.append(filling=100_000) for _ in range(40)]
        replayed = await sse(web.http, f"{web.url}/v1/events", 39, headers={"Last-Event-ID": ids[0]})
        assert [entry_id for _, entry_id, _ in replayed] == ids[1:]


async def test_a_stop_sends_each_subscriber_a_retry_and_ends_its_response_properly(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with front(redis_url) as web:
        await web.lead()
        await web.append()
        readers = [await web.connect("/v1/events") for _ in range(5)]
        await web.until_present(5)
        web.stop.set()
        bodies = [(await rest_of(reader)).decode() for reader, _ in readers]
        await web.serving
        with pytest.raises(ConnectionRefusedError):
            await web.connect("/v1/events")
        for body in bodies:
            assert "event: snapshot\n" in body
            assert body.endswith("\r\n0\r\n\r\n")
        ends = [body.split("\n\n")[-1] for body in bodies]
        assert all("retry: " in end and "data:" not in end for end in ends)
        assert len({end.partition("retry: ")[2].split()[0] for end in ends}) > 1
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_stop_waits_neither_for_an_unread_stream_nor_for_an_unanswered_reference(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with front(redis_url, subscriber_buffer=2**30) as web:
        await web.lead()
        await web.connect("/v1/events?snapshot=0")
        await web.until_present(1)
        for _ in range(60):
            await web.append(filling=200_000)
        asked = asyncio.create_task(web.http.get(f"{web.url}/v1/cvms/nobody"))
        await _until_looked_up(web.backend)
        web.stop.set()
        assert (await asked).status_code == 503
        async with asyncio.timeout(PATIENCE):
            await web.serving
    assert [record.getMessage() for record in caplog.records] == []


async def _until_looked_up(backend: Backend) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await backend.client.zcard(backend.keys.lookups):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_old_connection_is_ended_with_a_retry(redis_url: str) -> None:
    async with front(redis_url, subscriber_max_age=0.3) as web:
        await web.lead()
        reader, _ = await web.connect("/v1/events?snapshot=0")
        body = (await rest_of_response(reader)).decode()
        assert body.count("retry: ") == 2
        assert "event: position" in body


async def rest_of_response(reader: asyncio.StreamReader) -> bytes:
    """Up to the last chunk; the connection itself may be kept alive."""
    async with asyncio.timeout(PATIENCE):
        return await reader.readuntil(b"\r\n0\r\n\r\n")


async def test_one_subscriber_too_many_gets_503_or_an_event_if_it_takes_events_only(redis_url: str) -> None:
    async with front(redis_url, max_subscribers=1) as web:
        await web.lead()
        _, writer = await web.connect("/v1/events")
        await web.until_present(1)
        told = [REGISTRY.get_sample_value(f"bridge_subscribers{each}") for each in ("", "_limit")]
        assert told == [1, 1], "an alert fires before the first is refused"
        refused = await web.http.get(f"{web.url}/v1/events")
        assert refused.status_code == 503
        assert 10 <= int(refused.headers["retry-after"]) <= 20
        watching = await web.http.get(f"{web.url}/v1/events", headers={"Accept": "text/event-stream;status=1"})
        assert watching.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        shown = await web.http.get(f"{web.url}/v1/events", headers=BROWSER)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert shown.text.startswith("retry: ")
        assert "event: overloaded\n" in shown.text
        writer.close()
        await web.until_present(0)


async def test_clients_that_connect_together_do_not_exceed_the_limit(redis_url: str) -> None:
    async with front(redis_url, max_subscribers=3) as web:
        await web.lead()
        await Watches(web.backend).want("cvm-1")
        clients = [await web.connect("/v1/events?cvm=cvm-1&snapshot=0") for _ in range(20)]
        async with asyncio.timeout(PATIENCE):
            heads = [await reader.readline() for reader, _ in clients]
        assert sorted(head.split()[1] for head in heads) == [b"200"] * 3 + [b"503"] * 17


async def test_subscribers_that_came_before_the_log_get_its_first_event(redis_url: str) -> None:
    async with front(redis_url) as web:
        stream = asyncio.create_task(sse(web.http, f"{web.url}/v1/events", 2))
        await web.until_present(1)
        await web.lead()
        first = await web.append()
        events = await stream
        assert [(name, entry_id) for name, entry_id, _ in events] == [("position", "0-0"), ("state", first)]


async def test_demand_is_announced_when_it_changes(redis_url: str) -> None:
    async with front(redis_url, watch_linger=0.0) as web:
        await web.lead()
        watches = Watches(web.backend)
        await watches.want("cvm-1")
        _, writer = await web.connect("/v1/events?cvm=cvm-1")
        await _until_demanded(watches, {"cvm-1": 1})
        writer.close()
        await _until_demanded(watches, {})


async def _until_demanded(watches: Watches, demand: dict[str, int]) -> None:
    # Well under the five seconds of the regular announcement.
    async with asyncio.timeout(3.0):
        while (await watches.survey()).demand != demand:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_without_a_leader_the_last_states_are_stale_and_the_front_end_degraded(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await web.append()
        await Watches(web.backend).want("cvm-1")
        (event,) = await sse(web.http, f"{web.url}/v1/events", 1)
        assert (event[2]["data"]["fresh"], event[2]["data"]["stale_reason"]) == (False, "no_leader")
        shown = (await web.http.get(f"{web.url}/v1/cvms/cvm-1")).json()
        assert (shown["fresh"], shown["stale_reason"], shown["followed_by"]) == (False, "no_leader", None)
        ready = await web.http.get(f"{web.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


@pytest.mark.parametrize(
    ("method", "path", "secret", "status"),
    [
        ("GET", "/v1/cvms", None, 401),
        ("GET", "/v1/cvms", "wrong", 401),
        ("GET", "/v1/cvms", "readsecret", 200),
        ("GET", "/v1/events?limit=1", "onesecret", 200),
        ("GET", "/v1/cvms/cvm-2", "onesecret", 403),
        ("GET", "/v1/cvms/cvm-2/events", "onesecret", 403),
        ("GET", "/v1/events?cvm=cvm-2", "onesecret", 403),
        ("GET", "/v1/slots", "onesecret", 403),
        ("PUT", f"/v1/cvms/{OWN}", "readsecret", 403),
        ("DELETE", f"/v1/cvms/{OWN}", "readsecret", 403),
        ("PUT", f"/v1/cvms/{OWN}", "rootsecret", 201),
        ("GET", "/healthz", None, 200),
        ("GET", "/readyz", None, 200),
    ],
)
async def test_a_token_opens_the_routes_of_its_scope(
    redis_url: str, method: str, path: str, secret: str | None, status: int
) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        for cvm_id in (OWN, "cvm-2"):
            await Watches(web.backend).want(cvm_id)
        json_page = {"Accept": "application/json"}
        names = {"Authorization": f"Bearer {secret}"}, {"X-API-Key": str(secret)}
        await _until_ready(web)
        for header in names if secret else ({},):
            answer = await web.http.request(method, f"{web.url}{path}", headers={**json_page, **header})
            assert answer.status_code in ({201, 200} if status == 201 else {status})
            assert answer.headers["cache-control"] == "no-store"
            assert ("www-authenticate" in answer.headers) == (status == 401)
            assert "secret" not in answer.text


async def _until_ready(web: Front) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await web.http.get(f"{web.url}/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_limited_token_sees_its_own_cvms_only(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await web.lead()
        for cvm_id in (OWN, "cvm-2"):
            await Watches(web.backend).want(cvm_id)
        mine = await web.append(OWN)
        await web.append("cvm-2")
        headers = {"X-API-Key": "onesecret"}
        listed = (await web.http.get(f"{web.url}/v1/cvms", headers=headers)).json()
        page = await web.http.get(f"{web.url}/v1/events", headers={**headers, "Accept": "application/json"})
        assert [item["cvm_id"] for item in listed["items"]] == [OWN]
        assert [item["id"] for item in page.json()["items"]] == [mine]
        stream = asyncio.create_task(sse(web.http, f"{web.url}/v1/events", 2, headers=headers))
        await web.until_present(1)
        await web.append("cvm-2")
        live = await web.append(OWN)
        events = await stream
        assert [(name, data["subject"]) for name, _, data in events] == [("snapshot", OWN), ("state", OWN)]
        assert events[1][1] == live


async def test_a_stream_token_opens_streams_of_its_scope_and_does_not_prolong_itself(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await Watches(web.backend).want("cvm-1")
        made = await web.http.post(f"{web.url}/v1/stream-tokens", headers={"X-API-Key": "rootsecret"})
        query = {"access_token": made.json()["access_token"]}
        assert (await web.http.get(f"{web.url}/v1/cvms", params=query)).status_code == 200
        assert (await web.http.put(f"{web.url}/v1/cvms/cvm-1", params=query)).status_code == 403
        assert (await web.http.post(f"{web.url}/v1/stream-tokens", params=query)).status_code == 401
        forged = {"access_token": f"{query['access_token'][:-1]}!"}
        assert (await web.http.get(f"{web.url}/v1/cvms", params=forged)).status_code == 401


async def test_many_callers_with_one_reference_cost_one_look_up(redis_url: str) -> None:
    async with front(redis_url) as web:
        asked = [asyncio.create_task(web.http.get(f"{web.url}/v1/cvms/web-1")) for _ in range(10)]
        await _until_looked_up(web.backend)
        assert await web.backend.client.zcard(web.backend.keys.lookups) == 1
        refusal = Answer("web-1", None, 404, '{"detail":"CVM not found"}', "application/json")
        await ReferenceLookups(web.backend).answer(refusal)
        for answer in await asyncio.gather(*asked):
            assert (answer.status_code, answer.text) == (404, refusal.body)


async def test_a_redis_that_is_away_means_503_and_unready_until_it_is_back(own_server: RealServer) -> None:
    async with front(own_server.url) as web:
        await _until_ready(web)
        own_server.kill()
        await _until_unready(web)
        answer = await web.http.get(f"{web.url}/v1/cvms")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert "retry-after" in answer.headers
        own_server.start()
        await _until_ready(web)


async def test_a_frozen_redis_means_unready_although_no_connection_breaks(own_server: RealServer) -> None:
    async with front(own_server.url, lease_seconds=0.5) as web:
        await _until_ready(web)
        own_server.freeze()
        try:
            await _until_unready(web)
        finally:
            own_server.thaw()
        await _until_ready(web)


async def _until_unready(web: Front) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await web.http.get(f"{web.url}/readyz")).status_code != 503:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_page_of_an_allowed_origin_may_subscribe_with_a_cursor(redis_url: str) -> None:
    origin = "https://app.example.com"
    async with front(redis_url, cors_origins=(origin,)) as web:
        await web.lead()
        asks = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "last-event-id"}
        allowed = await web.http.options(f"{web.url}/v1/events", headers={"Origin": origin, **asks})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
        refused = await web.http.options(f"{web.url}/v1/events", headers={"Origin": "https://evil.example", **asks})
        assert "access-control-allow-origin" not in refused.headers
        async with web.http.stream("GET", f"{web.url}/v1/events", headers={"Origin": origin}) as stream:
            assert stream.headers["access-control-allow-origin"] == origin


async def test_a_token_at_its_limit_of_streams_gets_no_more_and_others_do(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS, max_subscribers_per_token=2) as web:
        await web.lead()
        query = "/v1/events?snapshot=0 HTTP/1.1\r\nX-API-Key: readsecret\r\nX-A:"
        _, first = await web.connect(query)
        await web.connect(query)
        await web.until_present(2)
        refused = await web.http.get(f"{web.url}/v1/events", headers={"X-API-Key": "readsecret"})
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:bridge:problem:too-many-streams")
        await web.connect(query.replace("readsecret", "rootsecret"))
        await web.until_present(3)
        first.close()
        await web.until_present(2)
        await web.connect(query)
        await web.until_present(3)


async def test_a_passing_error_is_an_event_for_who_takes_events_only_and_a_status_for_others(
    own_server: RealServer,
) -> None:
    async with front(own_server.url) as web:
        await _until_ready(web)
        own_server.kill()
        await _until_unready(web)
        waits = set()
        for _ in range(10):
            shown = await web.http.get(f"{web.url}/v1/events?cvm=cvm-1", headers=BROWSER)
            assert (shown.status_code, shown.text.splitlines()[1]) == (200, "event: unavailable")
            waits.add(int(shown.text.splitlines()[0].removeprefix("retry: ")))
        assert len(waits) > 1  # clients that were refused together must not return together
        assert min(waits) >= 5_000
        assert max(waits) <= 15_000
        assert (await web.http.get(f"{web.url}/v1/events?cvm=cvm-1")).status_code == 503
        own_server.start()


class LaterClock(SystemClock):
    """The wall clock, moved on by the test."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def test_an_expired_token_is_an_event_for_who_takes_events_only_and_401_for_others(redis_url: str) -> None:
    clock = LaterClock()
    async with front(redis_url, open_access=False, tokens=TOKENS, clock=clock) as web:
        made = await web.http.post(f"{web.url}/v1/stream-tokens", headers={"X-API-Key": "readsecret"})
        query = {"access_token": made.json()["access_token"]}
        clock.ahead = made.json()["expires_in"] + 1.0
        shown = await web.http.get(f"{web.url}/v1/events", params=query, headers=BROWSER)
        assert (shown.status_code, shown.text.splitlines()[1]) == (200, "event: token-expired")
        assert (await web.http.get(f"{web.url}/v1/events", params=query)).status_code == 401
        forged = {"access_token": f"{query['access_token'][:-1]}!"}
        assert (await web.http.get(f"{web.url}/v1/events", params=forged, headers=BROWSER)).status_code == 401
