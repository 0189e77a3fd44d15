"""TLS at the front end: streams, handshakes that do not end, and certificates that are renewed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from prometheus_client import REGISTRY

from bridge.open_files import OWN_FILES
from bridge.web import server
from tests.commands import Command
from tests.real.fronts import Front, front
from tests.real.test_http1 import Fast
from tests.real.test_stream_servers import body_until, head_of, ids_in
from tests.real.tls import OfFront
from tests.real.waiting import until
from tests.servers import PATIENCE, RealServer, eventually, free_port


@pytest.fixture
def issued(tmp_path: Path) -> OfFront:
    return OfFront(tmp_path)


async def stream(web: Front, query: str = "") -> asyncio.StreamReader:
    """One whose head and first block are read."""
    reader, _ = await web.connect(f"/v1/events?snapshot=0{query}")
    assert (await head_of(reader)).startswith(b"HTTP/1.1 200 ")
    return reader


async def test_live_and_late_subscribers_get_every_event_in_order(redis_url: str, issued: OfFront) -> None:
    async with front(redis_url, tls=issued) as web:
        await web.lead()
        first = await web.append()
        live = [await stream(web) for _ in range(3)]
        await web.until_present(3)
        written = [await web.append(filling=number % 7 * 500) for number in range(60)]
        late = await stream(web, f"&last_event_id={first}")
        written += [await web.append() for _ in range(60)]
        for reader in (*live, late):
            assert ids_in(await body_until(reader, b"id: %b\n" % written[-1].encode()))[-120:] == written


async def test_a_subscriber_that_does_not_read_is_cut_and_resumes(redis_url: str, issued: OfFront) -> None:
    async with front(redis_url, tls=issued, subscriber_buffer=20_000) as web:
        await web.lead()
        before = web.metric("bridge_slow_subscribers_total")
        slow, quick = await stream(web), await stream(web)
        await body_until(slow, b"event: position")
        await web.until_present(2)
        written = [await web.append(filling=20_000)]
        for _ in range(500):
            if web.metric("bridge_slow_subscribers_total") > before:
                break
            written.append(await web.append(filling=20_000))
            await body_until(quick, b"id: %b\n" % written[-1].encode())
        # The kernel's buffers, TLS's own, and the subscriber's.
        assert len(written) * 20_000 < 8_000_000
        await web.until_present(1)
        assert web.metric("bridge_slow_subscribers_total") == before + 1
        resumed = await stream(web, f"&last_event_id={written[0]}")
        assert ids_in(await body_until(resumed, b"id: %b\n" % written[-1].encode())) == written[1:]


async def test_a_drain_ends_streams_properly_and_waits_for_no_client(redis_url: str, issued: OfFront) -> None:
    async with front(redis_url, tls=issued) as web:
        await web.lead()
        readers = [await stream(web) for _ in range(5)]
        deaf = await stream(web)
        await web.until_present(6)
        for _ in range(10):
            await web.append(filling=100_000)
        web.stop.set()
        for reader in readers:
            async with asyncio.timeout(PATIENCE):
                body = await reader.read(-1)
            assert body.endswith(b"\r\n0\r\n\r\n")
            assert b"retry: " in body[-100:]
        async with asyncio.timeout(PATIENCE):
            await web.serving
        del deaf


async def test_handshakes_that_do_not_end_give_way_and_expire(
    redis_url: str, issued: OfFront, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "raise_open_files", lambda: OWN_FILES + 30)
    async with front(redis_url, tls=issued) as web:
        silent = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(60)]
        for _ in range(3):
            async with httpx.AsyncClient(verify=issued.trusting) as http:
                assert (await http.get(f"{web.url}/healthz")).status_code == 200
        assert web.metric("bridge_out_of_files_total") >= 30
        for _, writer in silent:
            writer.close()
    monkeypatch.undo()
    async with front(redis_url, tls=issued, clock=Fast()) as web:
        for given in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            writer.write(given)
            async with asyncio.timeout(PATIENCE):
                assert b"HTTP" not in await reader.read(-1)
            writer.close()
        _, ending = await asyncio.open_connection("127.0.0.1", web.port)
    ending.close()
    assert {record.message for record in caplog.records if record.levelno > logging.INFO} <= {
        "too few open files: connections without a request are ended"
    }


def serial(port: int, trusting: ssl.SSLContext) -> object:
    """Of the certificate that a new connection gets."""
    plain = socket.create_connection(("127.0.0.1", port))
    with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        shown = connection.getpeercert()
    assert shown
    return shown["serialNumber"]


async def test_a_renewed_certificate_is_for_new_connections_and_a_wrong_one_changes_nothing(
    redis_url: str, issued: OfFront, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with front(redis_url, tls=issued, clock=Fast()) as web:
        await web.lead()
        kept = await stream(web)
        first = await asyncio.to_thread(serial, web.port, issued.trusting)
        issued.renew(key=False)
        await until(lambda: "the new certificate cannot be used, the old one stays" in caplog.messages)
        assert await asyncio.to_thread(serial, web.port, issued.trusting) == first
        assert REGISTRY.get_sample_value("bridge_certificate_broken") == 1
        issued.renew()
        await until(lambda: "new connections get the new certificate" in caplog.messages)
        assert await asyncio.to_thread(serial, web.port, issued.trusting) != first
        assert REGISTRY.get_sample_value("bridge_certificate_broken") == 0
        entry_id = await web.append()
        assert ids_in(await body_until(kept, b"event: state"))[-1] == entry_id
    assert [record.error for record in caplog.records if record.levelno > logging.INFO] == [  # type: ignore[attr-defined]
        "BRIDGE_TLS_KEY is not the key of BRIDGE_TLS_CERT"
    ]


def test_up_shows_https_and_clients_find_it(issued: OfFront, tmp_path: Path, own_server: RealServer) -> None:
    command = Command(tmp_path, "up", REDIS_URL=own_server.url, PORT="0", **issued.settings)
    url = command.shows(r"address +(https://127.0.0.1:\d+)\n")
    trusted = {"SSL_CERT_FILE": str(issued.authority)}
    tail = Command(tmp_path, "tail", "--url", url, **trusted)
    tail.shows('"type":"cvm\\.')
    plain = Command(tmp_path, "tail", "--url", url.replace("https", "http"))
    plain.shows("cannot be reached")
    assert httpx.get(f"{url}/docs", verify=issued.trusting).status_code == 200
    assert [tail.ends(signal.SIGINT), plain.ends(signal.SIGINT), command.ends(signal.SIGTERM)] == [0, 0, 0]
    assert "Traceback" not in command.errors + tail.errors


def test_workers_drain_over_tls(issued: OfFront, tmp_path: Path, own_server: RealServer) -> None:
    port = free_port()
    environment = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": str(port)}
    command = Command(tmp_path, "web", "--workers", "2", **environment, **issued.settings, BRIDGE_DRAIN_SECONDS="0.5")
    command.shows(r"(?s)listening.*listening")
    with httpx.Client(verify=issued.trusting) as http, contextlib.ExitStack() as open_streams:
        url = f"https://127.0.0.1:{port}"
        eventually(lambda: http.get(f"{url}/readyz").status_code == 200, "it is ready")
        streams = [
            open_streams.enter_context(http.stream("GET", f"{url}/v1/events?snapshot=0")).iter_lines() for _ in range(6)
        ]
        for lines in streams:
            assert next(lines) == "retry: 3000"
        command.process.send_signal(signal.SIGTERM)
        for lines in streams:
            assert any(line.startswith("retry: ") for line in lines)  # raises if it does not end properly
    assert command.ends() == 0
    assert "Traceback" not in command.errors


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_certificate_that_cannot_be_used_is_one_line(
    issued: OfFront, tmp_path: Path, own_server: RealServer, workers: str
) -> None:
    locked, other = tmp_path / "locked.pem", tmp_path / "other"
    locked.write_bytes(trustme.CA().issue_cert("a.test").private_key_pem.bytes())
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    other.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    environment = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": "0"}
    given = {
        "BRIDGE_TLS_KEY is not set, but BRIDGE_TLS_CERT is": {"BRIDGE_TLS_KEY": ""},
        "BRIDGE_TLS_CERT is not set, but BRIDGE_TLS_KEY is": {"BRIDGE_TLS_CERT": ""},
        "BRIDGE_TLS_KEY: /nowhere cannot be read (No such file or directory)": {"BRIDGE_TLS_KEY": "/nowhere"},
        "BRIDGE_TLS_KEY is not the key of BRIDGE_TLS_CERT": {"BRIDGE_TLS_KEY": str(locked)},
        "BRIDGE_TLS_KEY must be without a password": {"BRIDGE_TLS_KEY": str(other)},
        "must be PEM files": {"BRIDGE_TLS_CERT": str(issued.key)},
    }
    commands = {
        line: Command(tmp_path, "web", "--workers", workers, **{**environment, **issued.settings, **changed})
        for line, changed in given.items()
    }
    for line, command in commands.items():
        assert command.ends() == 1
        assert command.errors.count("\n") == 1
        assert line in command.errors
