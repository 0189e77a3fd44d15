"""`BRIDGE_PASSTHROUGH=on` on real sockets: what reaches upstream, what comes back, and what never leaves."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from phala_cloud import AsyncPhalaCloud, AuthError

from tests.bridges import Whole, whole
from tests.real.fronts import front
from tests.real.waiting import until
from tests.servers import PATIENCE

TOKENS = "root:rootsecret:admin"
KEYS = {"key": "ops", "key-a": "ops", "key-b": "bob"}
FOREIGN = {"X-API-Key": "key-a"}


@dataclass
class Upstream:
    """A server that answers every request with the same bytes; `heads` and `bodies` are what it was sent.

    `breaks`: its first answer ends with the connection.
    """

    port: int
    answer: list[bytes]
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    breaks: bool = False

    @property
    def prefix(self) -> str:
        return f"http://127.0.0.1:{self.port}/base/api/v1"

    @property
    def head(self) -> dict[str, str]:
        """The last request's headers."""
        lines = self.heads[-1].decode("latin-1").split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self.breaks or not self.heads:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                self.bodies.append(await self._body(reader))
                for number, piece in enumerate(self.answer):
                    if number:
                        await self.go_on.wait()
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.lost.set()
            writer.close()

    async def _body(self, reader: asyncio.StreamReader) -> bytes:
        if "content-length" in self.head:
            return await reader.readexactly(int(self.head["content-length"]))
        body = b""
        if "transfer-encoding" in self.head:
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        return body


@asynccontextmanager
async def upstream(*answer: bytes) -> AsyncIterator[Upstream]:
    """`answer`: pieces; each after the first waits for `go_on`."""
    made = Upstream(0, list(answer))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def plain(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


def through(sim: Upstream) -> dict[str, Any]:
    return {"open_access": False, "tokens": TOKENS, "passthrough": True, "api_prefix": sim.prefix, "api_key": "lent"}


async def test_a_request_goes_to_upstream_and_back_unchanged(redis_url: str) -> None:
    packed = gzip.compress(b'{"a": 1}')
    headers = (
        b"Content-Encoding: gzip",
        b"Content-Type: application/x-own",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Location: http://[nowhere",
        b"Connection: close, X-Inner",
        b"X-Inner: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
    )
    async with upstream(plain(packed, *headers, status=b"307 Temporary Redirect")) as sim:
        async with front(redis_url, **through(sim)) as web:
            sent = {
                **FOREIGN,
                "X-Phala-Version": "2026-01-21",
                "Connection": "keep-alive, X-Hop",
                "X-Hop": "1",
                "TE": "trailers",
                "Proxy-Authorization": "Basic eA==",
                "Accept-Encoding": "br",
                "User-Agent": "own",
                "Accept": "*/*",
            }
            url = httpx.URL(f"{web.url}/api/v1/apps/a%2Fb/%7Ec?x=%20&y=+&x=1&z")
            async with web.http.stream("PATCH", url, headers=sent, content=b'{"b": 2}') as answer:
                raw = b"".join([piece async for piece in answer.aiter_raw()])
        assert sim.heads[-1].split(b"\r\n")[0] == b"PATCH /base/api/v1/apps/a%2Fb/%7Ec?x=%20&y=+&x=1&z HTTP/1.1"
        assert sim.bodies == [b'{"b": 2}']
        assert sim.head == {
            "host": f"127.0.0.1:{sim.port}",
            "x-api-key": "key-a",
            "x-phala-version": "2026-01-21",
            "accept-encoding": "br",
            "user-agent": "own",
            "accept": "*/*",
            "content-length": "8",
        }
        assert (answer.status_code, raw) == (307, packed)
        told = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() != b"date"]
        assert sorted(told) == [
            (b"content-encoding", b"gzip"),
            (b"content-length", b"%d" % len(packed)),
            (b"content-type", b"application/x-own"),
            (b"location", b"http://[nowhere"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ]
        assert len(answer.headers.get_list("date")) == 1


async def test_bodies_are_streamed_both_ways(redis_url: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with upstream(head + b"5\r\nfirst\r\n", b"6\r\nsecond\r\n0\r\n\r\n") as sim:

        async def upload() -> AsyncIterator[bytes]:
            yield b"one"
            await until(lambda: bool(sim.heads))  # the head is there although the body is not whole
            yield b"two"

        async with (
            front(redis_url, **through(sim)) as web,
            web.http.stream("POST", f"{web.url}/api/v1/x", headers=FOREIGN, content=upload()) as answer,
        ):
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"first"
            sim.go_on.set()
            assert [piece async for piece in pieces] == [b"second"]
        assert sim.bodies == [b"onetwo"]


async def test_an_http_1_0_client_gets_a_chunked_body_without_its_framing(redis_url: str) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
    async with upstream(chunked) as sim, front(redis_url, **through(sim)) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        web.writers.append(writer)
        writer.write(b"GET /api/v1/x HTTP/1.0\r\nX-API-Key: key-a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        assert (body, b"transfer-encoding" in head.lower()) == (b"firstsecond", False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [b"200 OK", b"304 Not Modified", b"204 No Content"])
async def test_answers_without_a_body_are_whole(
    redis_url: str, caplog: pytest.LogCaptureFixture, method: str, status: bytes
) -> None:
    length = b"0" if (method, status[:3]) == ("GET", b"200") else b"7"
    said = b"HTTP/1.1 " + status + b"\r\nContent-Length: " + length + b"\r\nETag: x\r\n\r\n"
    async with upstream(said) as sim, front(redis_url, **through(sim)) as web:
        for _ in range(2):
            answer = await web.http.request(method, f"{web.url}/api/v1/x", headers=FOREIGN)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (int(status[:3]), b"", "x")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_upstream_is_left_when_the_client_goes(redis_url: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    async with upstream(head, b"") as sim, front(redis_url, **through(sim)) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET /api/v1/x HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key-a\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
        async with asyncio.timeout(PATIENCE):
            sim.go_on.set()
            await sim.lost.wait()


async def test_a_stop_waits_for_no_answer_that_does_not_end(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    async with upstream(head, b"") as sim, front(redis_url, **through(sim)) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET /api/v1/x HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key-a\r\n\r\n")
        await reader.readuntil(b"first")
        web.stop.set()
        async with asyncio.timeout(PATIENCE):
            await web.serving
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()
        sim.go_on.set()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_answer_that_breaks_off_does_not_look_whole(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    for kind in (b"Content-Length: 100\r\n\r\nfirst", b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"):
        async with upstream(b"HTTP/1.1 200 OK\r\n" + kind) as sim, front(redis_url, **through(sim)) as web:
            sim.breaks = True
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await web.http.get(f"{web.url}/api/v1/x", headers=FOREIGN)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"X-API-Key": "rootsecret"}, ""),
        ({"Authorization": "Bearer rootsecret"}, ""),
        ({"X-API-Key": "key-a", "Authorization": "Bearer rootsecret"}, ""),
        ({"X-API-Key": "key-a"}, "?access_token=rootsecret"),
    ],
)
async def test_a_token_of_the_bridge_never_leaves_for_upstream(
    redis_url: str, headers: dict[str, str], query: str
) -> None:
    async with upstream(plain()) as sim, front(redis_url, **through(sim)) as web:
        for method, path in (("GET", "/users/me"), ("POST", "/cvms"), ("PUT", "/cvms/a/state")):
            answer = await web.http.request(method, f"{web.url}/api/v1{path}{query}", headers=headers)
            assert answer.status_code in (404, 405)
        assert sim.heads == []


async def test_without_a_key_nothing_leaves_and_no_key_is_lent(redis_url: str) -> None:
    async with upstream(plain()) as sim, front(redis_url, **through(sim)) as web:
        for headers in ({}, {"Authorization": "Bearer oauth"}):
            answer = await web.http.get(f"{web.url}/api/v1/users/me", headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})
        assert sim.heads == []
        await web.http.get(f"{web.url}/api/v1/users/me", headers=FOREIGN)
        assert b"lent" not in sim.heads[0]


DOTS = (
    *("/api/v1/../admin", "/api/v1/a/../../../admin", "/api/v1/./a", "/api/v1/.."),
    *("/api/v1/%2e%2e/admin", "/api/v1/.%2E/admin", "/api/v1/..%2fadmin", "/api/v1/..\\admin", "/api/v1/..%5cadmin"),
    *("/api/v1/%252e%252e/admin", "/api/v1/a%2f..%2f..%2f..%2fadmin", "/api/v1/%2e/a"),
)


async def test_no_path_leads_out_of_the_api(redis_url: str) -> None:
    async with upstream(plain()) as sim, front(redis_url, **through(sim)) as web:
        for path in DOTS:
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key-a\r\nConnection: close\r\n\r\n".encode()
            )
            assert b"404" in (await reader.read()).split(b"\r\n")[0]
            writer.close()
        assert sim.heads == []


async def test_one_callers_cookies_are_not_anothers(redis_url: str) -> None:
    async with upstream(plain(b"{}", b"Set-Cookie: session=alice")) as sim, front(redis_url, **through(sim)) as web:
        for _ in range(2):
            async with httpx.AsyncClient() as caller:
                await caller.get(f"{web.url}/api/v1/users/me", headers=FOREIGN)
        assert len(sim.heads) == 2
        assert "cookie" not in sim.head


async def test_an_upstream_that_is_away_is_502(redis_url: str) -> None:
    async with upstream() as sim:
        given = through(sim)
    async with front(redis_url, **given) as web:
        for path in ("/users/me", "/cvms/a/state"):
            answer = await web.http.get(f"{web.url}/api/v1{path}", headers=FOREIGN)
            assert (answer.status_code, answer.json()) == (502, {"detail": "Upstream cannot be reached"})


async def test_off_it_relays_nothing(redis_url: str) -> None:
    async with upstream(plain()) as sim, front(redis_url, **{**through(sim), "passthrough": False}) as web:
        assert (await web.http.get(f"{web.url}/api/v1/users/me", headers=FOREIGN)).status_code == 404
        assert (await web.http.get(f"{web.url}/api/v1/cvms/a/state", headers=FOREIGN)).status_code == 401
        assert sim.heads == []


@asynccontextmanager
async def bridged(redis_url: str, **settings: Any) -> AsyncIterator[Whole]:
    given = {"passthrough": True, "tokens": TOKENS, **settings}
    async with whole(redis_url, cvms=2, settings=given, open_access=False, keys=KEYS) as bridge:
        await bridge.until_seen(2)
        yield bridge


async def test_one_base_url_serves_a_whole_sdk(redis_url: str) -> None:
    async with bridged(redis_url) as bridge:
        cvm = bridge.sim.simulator.world.cvms[0]
        async with AsyncPhalaCloud(api_key="key-a", base_url=f"{bridge.url}/api/v1") as sdk:
            listed = await sdk.get_cvm_list({"page": 1, "page_size": 10})
            batch = await sdk.get_cvm_status_batch({"vm_uuids": [cvm.vm_uuid]})
            details = await sdk.get_cvm_info({"id": cvm.vm_uuid})
            state = await sdk.get_cvm_state({"id": cvm.name})
            request = {"id": cvm.name, "target": "stopped", "maxRetries": 0}
            watching = [asyncio.create_task(sdk.watch_cvm_state(request)) for _ in range(24)]
            await asyncio.sleep(0.5)
            await bridge.patch(cvm.vm_uuid, status="stopped")
            results = await asyncio.gather(*watching)
        assert (listed.total, batch[cvm.vm_uuid].status, details.name) == (2, "running", cvm.name)
        assert (state.id, [result.status for result in results]) == (cvm.vm_uuid, ["stopped"] * 24)
        # The bridge's own streams alone, for a key of the same user.
        assert bridge.sim.simulator.quota.users["ops"].max <= 2


async def test_a_key_reads_what_upstream_lets_it_read_and_is_asked_about_once(redis_url: str) -> None:
    async with bridged(redis_url) as bridge:
        mine = bridge.sim.simulator.world.create(name="of-bob", owner="bob")
        shared = bridge.sim.simulator.world.cvms[0]
        theirs = bridge.sim.simulator.world.create(name="of-ops", owner="ops")
        urls = {cvm.name: f"{bridge.url}/api/v1/cvms/{cvm.name}/state" for cvm in (mine, shared, theirs)}
        bob = {"X-API-Key": "key-b"}
        bridge.sim.simulator.reset_counters()
        for _ in range(10):
            answer = await bridge.http.get(urls[shared.name], headers=bob)
            assert (answer.status_code, answer.json()["id"]) == (200, shared.vm_uuid)
            assert "age" in answer.headers
        asked = [visit for visit in bridge.sim.simulator.counters.recent if visit.user == "bob"]
        assert [visit.route for visit in asked] == ["state"]
        # What the bridge's own key cannot see upstream answers itself.
        answer = await bridge.http.get(urls["of-bob"], headers=bob)
        assert (answer.status_code, answer.json()["id"], "age" in answer.headers) == (200, mine.vm_uuid, False)
        stream = await bridge.http.get(f"{urls['of-bob']}?target=running", headers=bob)
        assert "event: complete" in stream.text
        # One name, two workspaces: each sees its own.
        bridge.sim.simulator.world.create(name="twice", owner="ops")
        his = bridge.sim.simulator.world.create(name="twice", owner="bob")
        his.raw = b'{"name":"twice","status":"running","whose":"bob"}'
        twice = f"{bridge.url}/api/v1/cvms/twice/state"
        assert (await bridge.http.get(twice, headers={"X-API-Key": "rootsecret"})).status_code == 200
        assert (await bridge.http.get(twice, headers=bob)).json()["whose"] == "bob"
        # What the caller's key cannot see stays unseen, although the bridge knows it.
        refused = await bridge.http.get(urls["of-ops"], headers=bob)
        direct = await bridge.http.get(f"{bridge.sim.api_prefix}/cvms/of-ops/state", headers=bob)
        assert (refused.status_code, refused.content) == (404, direct.content)
        invalid = await bridge.http.get(f"{urls[shared.name]}?interval=1", headers=bob)
        assert invalid.status_code == 422
        async with AsyncPhalaCloud(api_key="nobodys", base_url=f"{bridge.url}/api/v1") as sdk:
            with pytest.raises(AuthError):
                await sdk.get_cvm_state({"id": shared.name})
