"""TLS to every node and every sentinel; a password never leaves in plain text where TLS was asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from bridge.store.connection import connect
from bridge.store.errors import StoreUnavailableError
from tests.bridges import whole
from tests.real.tls import USER, Certificates, proxies, servers, tls_binary

FORMS = ["standalone", "sentinel", "cluster"]


def url(form: str, port: int, query: str = "", scheme: str = "rediss") -> str:
    kind, path = {"standalone": ("", ""), "sentinel": ("+sentinel", "main"), "cluster": ("+cluster", "")}[form]
    name, password = (quote(part, safe="") for part in USER)
    return f"{scheme}{kind}://{name}:{password}@127.0.0.1:{port}/{path}?{query}"


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spoken_by", ["proxies", "servers"])
async def test_a_whole_bridge_runs_over_tls_with_certificates_of_both_sides(
    form: str, spoken_by: str, made: Certificates
) -> None:
    if spoken_by == "servers" and tls_binary() is None:
        pytest.skip("no server on this machine was built with TLS")
    async with contextlib.AsyncExitStack() as stack:
        server, port = (
            stack.enter_context(servers(form, made))
            if spoken_by == "servers"
            else await stack.enter_async_context(proxies(form, made))
        )
        server.call("ACL", "SETUSER", USER[0], "on", f">{USER[1]}", "+@all", "~*", "&*")
        async with whole(url(form, port, made.query), cvms=2) as bridge:
            await bridge.until_seen(2)
            await bridge.patch(bridge.ids[0], status="stopped")

            async def told() -> bool:
                return bool((await bridge.cvm(bridge.ids[0]))["status"] == "stopped")

            await bridge.until(told, "the change")
            users = {line.partition(" user=")[2].split()[0] for line in server.call("CLIENT", "LIST").splitlines()}
            assert USER[0] in users


@contextlib.asynccontextmanager
async def recorder() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A plain server that answers OK to everything, and all that it was sent."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                received.append(data)
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1]), received


async def trouble(address: str) -> str:
    """What a call says that cannot succeed."""
    backend = connect(address, "bridge")
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            await backend.ping()
    finally:
        await backend.close()
    return str(caught.value)


def assert_secret(received: list[bytes]) -> None:
    """All that was sent is the beginning of a TLS handshake."""
    assert received
    assert all(data.startswith(b"\x16\x03") for data in received)
    assert not any(part.encode() in b"".join(received) for part in ("AUTH", "HELLO", *USER))


@pytest.mark.parametrize("form", FORMS)
async def test_a_plain_server_gets_no_password_where_tls_was_asked_for(form: str, made: Certificates) -> None:
    async with recorder() as (port, received):
        await trouble(url(form, port, f"{made.query}{'&sentinel_password=guard' if form == 'sentinel' else ''}"))
        assert_secret(received)


@pytest.mark.parametrize("form", ["sentinel", "cluster"])
async def test_a_plain_node_that_tls_servers_name_gets_no_password(form: str, made: Certificates) -> None:
    async with recorder() as (plain, received), proxies(form, made, names=plain) as (server, port):
        server.call("ACL", "SETUSER", USER[0], "on", f">{USER[1]}", "+@all", "~*", "&*")
        await trouble(url(form, port, made.query))
        assert_secret(received)


@pytest.mark.parametrize("form", ["standalone", "cluster"])
async def test_a_certificate_that_is_not_accepted_is_told_as_that(form: str, made: Certificates) -> None:
    async with proxies(form, made) as (_, port):
        assert "certificate verify failed" in await trouble(url(form, port))


async def test_a_certificate_for_another_host_is_told_as_that(made: Certificates) -> None:
    async with proxies("standalone", made) as (_, port):
        assert "Hostname mismatch" in await trouble(
            url("standalone", port, made.query).replace("127.0.0.1", "localhost")
        )
