"""The embedded server on a real binary and real signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from bridge.process import embedded
from bridge.process.embedded import DirectoryHeldError, EmbeddedError, EmbeddedServer, NoServerError, find_server
from tests.servers import eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PARENT = """
import asyncio, signal, sys
from pathlib import Path
from bridge.process.embedded import EmbeddedServer
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in a shell's background inherits that it is ignored
async def main():
    async with EmbeddedServer(Path(sys.argv[1])) as server:
        print(server._process.pid, server.url, flush=True)
        await server.wait()
asyncio.run(main())
"""


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="br-", dir="/tmp") as path:
        yield Path(path) / "state"


@contextlib.contextmanager
def parent(state: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Another process that holds the directory, with its server's process id and URL."""
    command = [sys.executable, "-c", PARENT, str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            pid, url = process.stdout.readline().split()
            yield process, int(pid), url
        finally:
            process.kill()


def remember(state: Path, port: int) -> None:
    """Writes the port of an earlier start, which the next start takes if it is free."""
    state.mkdir()
    (state / "port").write_text(f"{port}\n")


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie counts as ended."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return sys.platform == "linux"
        return True


def on(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=5, decode_responses=True)


async def test_it_answers_on_its_port_and_its_socket_and_keeps_its_data_for_the_next_start(state: Path) -> None:
    remember(state, free_port())  # one that no other test takes between the starts
    async with EmbeddedServer(state) as server:
        with on(server.url) as client:
            client.xadd("log", {"event": "1"}, id="1-0")
        first = server.url
    async with EmbeddedServer(state) as server:
        with on(server.socket_url) as client:
            assert client.xrange("log") == [("1-0", {"event": "1"})]
            assert client.config_get("appendonly", "save", "maxmemory-policy", "bind", "appendfsync") == {
                "appendonly": "yes",
                "save": "",
                "maxmemory-policy": "noeviction",
                "bind": "127.0.0.1",
                "appendfsync": "everysec",
            }
        assert server.url == first


async def test_only_this_user_can_enter_the_directory_of_data_and_socket(state: Path) -> None:
    async with EmbeddedServer(state) as server:
        path = Path(server.socket_url.removeprefix("unix://").partition("?")[0])
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert (state / "redis").stat().st_mode & 0o777 == 0o700


async def test_a_second_start_on_the_directory_is_refused_with_the_holders_process_id(state: Path) -> None:
    async with EmbeddedServer(state) as server:
        with pytest.raises(DirectoryHeldError, match=f"in use by process {os.getpid()}: stop it") as caught:
            await EmbeddedServer(state).__aenter__()
        assert "\n" not in str(caught.value)
        with on(server.url) as client:
            assert client.ping()


async def test_two_starts_at_one_moment_give_one_server(state: Path) -> None:
    results = await asyncio.gather(*(EmbeddedServer(state).__aenter__() for _ in range(4)), return_exceptions=True)
    running = [result for result in results if isinstance(result, EmbeddedServer)]
    for server in running:
        await server.stop()
    assert len(running) == 1
    assert sum(isinstance(result, DirectoryHeldError) for result in results) == 3


async def test_the_server_ends_with_a_killed_parent_and_the_next_start_has_the_data(state: Path) -> None:
    with parent(state) as (process, pid, url):
        with on(url) as client:
            client.set("key", "kept")
        process.kill()
        process.wait()
        async with EmbeddedServer(state) as server:
            assert gone(pid)
            with on(server.url) as client:
                assert client.get("key") == "kept"


async def test_an_interrupt_from_the_terminal_reaches_the_parent_alone(state: Path) -> None:
    with parent(state) as (process, pid, url):
        assert os.getpgid(pid) != os.getpgid(process.pid)
        assert os.getsid(pid) != os.getsid(process.pid)
        with on(url) as client:
            client.set("key", "kept")
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        eventually(lambda: gone(pid), "the server's end")
    async with EmbeddedServer(state) as server:
        with on(server.url) as client:
            assert client.get("key") == "kept"


async def test_a_crash_of_the_server_is_reported(state: Path) -> None:
    async with EmbeddedServer(state) as server:
        waiting = asyncio.create_task(server.wait())
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        with pytest.raises(EmbeddedError, match="ended unexpectedly \\(SIGKILL\\)"):
            await waiting


async def test_wait_returns_after_a_planned_stop(state: Path) -> None:
    async with EmbeddedServer(state) as server:
        waiting = asyncio.create_task(server.wait())
        await asyncio.sleep(0)
    await waiting
    assert "stopped" in repr(server)


async def test_a_frozen_server_is_killed_when_its_time_to_stop_is_over(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.05)
    async with EmbeddedServer(state) as server:
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGSTOP)
    assert server._process.returncode == -signal.SIGKILL


async def test_a_path_too_long_for_a_socket_gets_a_short_one_that_is_removed(state: Path) -> None:
    deep = state / ("x" * 120)
    async with EmbeddedServer(deep) as server:
        with on(server.socket_url) as client:
            assert client.ping()
        path = Path(server.socket_url.removeprefix("unix://").partition("?")[0])
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


async def test_the_path_may_have_spaces_and_percent_signs(state: Path) -> None:
    async with EmbeddedServer(state / "my %20 data") as server:
        with on(server.socket_url) as client:
            assert client.ping()


async def test_a_port_that_is_in_use_is_skipped(state: Path) -> None:
    async with EmbeddedServer(state) as server:
        taken = server.port
    with socket.create_server(("127.0.0.1", taken)):
        async with EmbeddedServer(state) as server:
            assert server.port != taken
            with on(server.url) as client:
                assert client.ping()


async def test_a_port_taken_between_check_and_start_is_skipped(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taker:
        taken = taker.getsockname()[1]
        found = iter([taken, free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda remembered: next(found))
        async with EmbeddedServer(state) as server:
            assert server.port != taken
            with on(server.url) as client:
                assert client.ping()


async def test_unreadable_data_stops_the_start_with_the_servers_own_message(state: Path) -> None:
    async with EmbeddedServer(state):
        pass
    (state / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(EmbeddedError, match=r"did not start: .*manifest.*\(see .*server\.log\)"):
        await EmbeddedServer(state).__aenter__()
    with pytest.raises(EmbeddedError, match="did not start"):
        await EmbeddedServer(state).__aenter__()


async def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    state = tmp_path / "file" / "state"
    os.mknod(state.parent)
    with pytest.raises(EmbeddedError, match="cannot be created: "):
        await EmbeddedServer(state).__aenter__()


def test_without_any_server_one_line_tells_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded, "wheel_server", lambda: None)
    with pytest.raises(NoServerError, match=r"^no Redis server was found: install .* set REDIS_URL$"):
        find_server()


@pytest.mark.parametrize(("version", "taken"), [("6.0.16", False), ("6.2.0", True), ("10.1.0", True), ("?", False)])
def test_a_server_on_the_path_is_used_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, taken: bool
) -> None:
    own = tmp_path / "redis-server"
    own.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0 bits=64'\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (find_server() == own) is taken


def test_the_state_directory_follows_the_xdg_variable_if_it_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert embedded.state_directory() == Path("/home/someone/.local/state/bridge")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert embedded.state_directory() == Path("/var/state/bridge")
