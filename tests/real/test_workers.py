"""`bridge web --workers` as a user runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bridge.config import Settings
from bridge.process import workers
from bridge.process.signals import CommandError, Stop
from bridge.process.worker import End
from bridge.store.watches import Watches
from tests.commands import Command
from tests.prometheus import promtool
from tests.real.fronts import front
from tests.servers import PATIENCE, RealServer, eventually, free_port
from tests.virtual import run_virtual


@pytest.fixture
def probe_port() -> int:
    return free_port()


@pytest.fixture
def web(request: pytest.FixtureRequest, tmp_path: Path, own_server: RealServer, probe_port: int) -> tuple[Command, int]:
    """Two workers that listen, and their port; a parameter is the drain's seconds."""
    port = free_port()
    environment = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": str(port)}
    drain = getattr(request, "param", "0.2")
    environment["TMPDIR"] = str(tmp_path)
    environment["BRIDGE_PROBE_PORT"] = str(probe_port)
    command = Command(tmp_path, "web", "--workers", "2", BRIDGE_DRAIN_SECONDS=drain, **environment)
    eventually(lambda: command.errors.count("listening") >= 2, "both listen")
    return command, port


Subscribe = Callable[[int, int], list[socket.socket]]


@pytest.fixture
def subscribed() -> Iterator[Subscribe]:
    """Opens streams on a port and reads their first position, so that anything that follows is new."""
    with contextlib.ExitStack() as opened:

        def subscribe(port: int, count: int) -> list[socket.socket]:
            clients = []
            for _ in range(count):
                client = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                client.sendall(b"GET /v1/events?snapshot=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert read_until(client, b"event: position").startswith(b"HTTP/1.1 200 ")
                clients.append(client)
            return clients

        yield subscribe


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Everything up to the end of the chunk that contains `end`."""
    read = b""
    while end not in read or not read.endswith(b"\n\r\n"):
        more = client.recv(4096)
        assert more, f"the stream ended before {end!r}: {read!r}"
        read += more
    return read


def metric(port: int, name: str, token: str = "") -> list[float]:
    """Its value, if there is one."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"X-API-Key": token}).text
    return [float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")]


def subscribers_of(port: int) -> float:
    return metric(port, "bridge_subscribers")[0]


def workers_of(parent: int) -> list[int]:
    """The child processes of `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"PPid:\t{parent}\n" in (entry / "status").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_both_serve_one_port_and_each_reports_the_sum_of_both(
    web: tuple[Command, int], subscribed: Subscribe, probe_port: int
) -> None:
    command, port = web
    clients = subscribed(port, 40)
    for asked in (port, probe_port):
        assert subscribers_of(asked) == 40
        page = httpx.get(f"http://127.0.0.1:{asked}/metrics").text
        assert "bridge_build_info{version=" in page
        assert promtool("check", "metrics", given=page) == ""
        assert httpx.get(f"http://127.0.0.1:{asked}/readyz").json()["reason"] == "no leader"
    assert len(workers_of(command.process.pid)) == 2
    for client in clients:
        client.close()
    eventually(lambda: subscribers_of(port) == 0, "all are gone")


def test_a_killed_worker_is_replaced_and_the_others_streams_go_on(
    web: tuple[Command, int], subscribed: Subscribe
) -> None:
    command, port = web
    first = workers_of(command.process.pid)
    os.kill(first[0], signal.SIGKILL)
    command.shows("a worker ended unexpectedly")
    eventually(lambda: len(workers_of(command.process.pid)) == 2, "a new one")
    assert len(set(first) & set(workers_of(command.process.pid))) == 1
    eventually(lambda: command.errors.count("listening") >= 3, "it listens")
    subscribed(port, 10)


async def write_events(url: str, count: int) -> None:
    async with front(url, namespace="bridge") as leader:
        await leader.lead()
        for _ in range(count):
            await leader.append()


def test_metrics_are_true_while_a_worker_is_replaced(web: tuple[Command, int], own_server: RealServer) -> None:
    command, port = web
    asyncio.run(write_events(own_server.url, 3))
    eventually(lambda: metric(port, "bridge_position") == [3.0], "the position")
    os.kill(workers_of(command.process.pid)[0], signal.SIGKILL)
    positions = set[tuple[float, ...]]()

    def replaced() -> bool:
        positions.add(tuple(metric(port, "bridge_position")))
        return metric(port, 'bridge_workers_replaced_total{cause="crashed"}') == [1.0]

    eventually(replaced, "the new worker's count")
    eventually(lambda: metric(port, "bridge_feed_resubscribes_total") == [3.0], "its subscription")
    positions.add(tuple(metric(port, "bridge_position")))
    assert positions == {(3.0,)}
    assert "pid=" not in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_stop_drains_and_ends_all_workers(web: tuple[Command, int], subscribed: Subscribe) -> None:
    command, port = web
    workers = workers_of(command.process.pid)
    clients = subscribed(port, 20)
    assert command.ends(signal.SIGTERM) == 0
    for client in clients:
        with client.makefile("rb") as reader:
            assert reader.read().endswith(b"\r\n0\r\n\r\n")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_signal_to_all_processes_at_once_drains_too(web: tuple[Command, int], subscribed: Subscribe) -> None:
    command, port = web
    clients = subscribed(port, 20)
    for process in (*workers_of(command.process.pid), command.process.pid):
        os.kill(process, signal.SIGTERM)
    assert command.ends() == 0
    for client in clients:
        with client.makefile("rb") as reader:
            assert reader.read().endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("web", ["600"], indirect=True)
def test_a_second_signal_ends_the_workers_at_once_too(web: tuple[Command, int], subscribed: Subscribe) -> None:
    command, port = web
    running = workers_of(command.process.pid)
    clients = subscribed(port, 40)
    command.process.send_signal(signal.SIGTERM)
    read_until(clients[0], b"retry: ")  # the drain has begun: a signal sent before would be one with the next
    assert command.ends(signal.SIGTERM) == 128 + signal.SIGTERM
    eventually(lambda: not any(Path(f"/proc/{worker}").exists() for worker in running), "they end")


async def starts(monkeypatch: pytest.MonkeyPatch, *ends: tuple[float, int]) -> int:
    """How often a worker is started if its runs last and exit as in `ends`, before `stop` is set."""
    started, stop = 0, Stop()

    async def run(environment: object, stop: Stop, *_: object) -> End:
        nonlocal started
        started += 1
        if started > len(ends):
            stop.set()
            return End(0, hung=False)
        seconds, status = ends[started - 1]
        await asyncio.sleep(seconds)
        return End(status, hung=False)

    monkeypatch.setattr(workers, "run_worker", run)
    await workers.run_workers(Settings(port=0), "127.0.0.1", 1, stop)
    return started


def test_a_crash_restarts_a_worker_and_a_first_start_that_fails_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    crashes = (60.0, 1), (0.5, 1), (0.0, -11), (60.0, 137), (60.0, 0)
    assert run_virtual(starts(monkeypatch, *crashes)) == len(crashes) + 1
    with pytest.raises(CommandError):
        run_virtual(starts(monkeypatch, (0.5, 1)))


def test_workers_end_with_a_parent_that_was_killed_and_leave_no_files(web: tuple[Command, int], tmp_path: Path) -> None:
    command, _ = web
    workers = workers_of(command.process.pid)
    assert list(tmp_path.glob("bridge-*"))
    command.process.kill()
    eventually(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "they end")
    assert list(tmp_path.glob("bridge-*")) == []


def test_a_port_in_use_and_a_wrong_setting_are_one_line(tmp_path: Path, own_server: RealServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": port}
        command = Command(tmp_path, "web", "--workers", "2", **environment)
        assert command.ends() == 1
        assert "PORT" in command.errors
        assert "Traceback" not in command.errors


CVM = "0000000a-0000-4000-8000-000000000000"


async def see_cvm(url: str) -> None:
    """One event about a watched CVM."""
    async with front(url) as leader:
        await leader.lead()
        await Watches(leader.backend).renew([CVM])
        await leader.append(CVM)


def test_a_token_that_leaves_its_file_loses_what_it_opened_on_each_worker_and_others_go_on(
    tmp_path: Path, own_server: RealServer
) -> None:
    def write(*tokens: str) -> None:
        (tmp_path / "draft").write_text("\n".join(tokens))
        (tmp_path / "draft").rename(tmp_path / "tokens")

    def opened(path: str, token: str) -> socket.socket:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: {token}\r\n\r\n"
        client.sendall(head.encode())
        return client

    def status(token: str) -> bytes:
        return opened("/v1/cvms", token).recv(12)[-3:]

    write("goes:secret-1:read", "stays:secret-2:read")
    asyncio.run(see_cvm(own_server.url))
    port = free_port()
    environment = {"REDIS_URL": own_server.url, "HOST": "127.0.0.1", "PORT": str(port), "TMPDIR": str(tmp_path)}
    command = Command(tmp_path, "web", "--workers", "2", BRIDGE_TOKENS_FILE=str(tmp_path / "tokens"), **environment)
    eventually(lambda: command.errors.count("listening") >= 2, "both listen")
    with contextlib.ExitStack() as stack:
        events, wait = "/v1/events?snapshot=0", f"/v1/cvms/{CVM}/wait?to=stopped&timeout=60"
        paths = {
            events: b"\r\n0\r\n\r\n",
            f"/api/v1/cvms/{CVM}/state?target=stopped": b"event: timeout",
            wait: b":unavailable",
        }
        ending = [(opened(path, "secret-1"), told) for path, told in paths.items() for _ in range(5)]
        staying = [opened(events, "secret-2") for _ in range(5)]
        present = [float(len(ending) + len(staying))]
        eventually(lambda: metric(port, "bridge_subscribers", "secret-2") == present, "all are there")

        write("stays:secret-2:read", "comes:secret-3:read")
        for client, told in ending:
            with client.makefile("rb") as reader:
                assert told in reader.read()
        assert {status(each) for each in ("secret-1",) * 10} == {b"401"}
        assert {status(each) for each in ("secret-2", "secret-3") * 5} == {b"200"}

        write("broken")
        eventually(lambda: metric(port, "bridge_tokens_file_broken", "secret-2") == [1.0], "the metric")
        assert {status("secret-2") for _ in range(10)} == {b"200"}
        asyncio.run(see_cvm(own_server.url))
        for client in staying:
            read_until(client, b"event: state")
        assert "secret-" not in command.errors
