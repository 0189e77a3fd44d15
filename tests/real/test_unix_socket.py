"""`HOST=unix:/path`: one front end or several workers at a socket in the file system."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest

from tests.commands import Command
from tests.servers import RealServer, eventually


@pytest.fixture
def path(own_server: RealServer) -> Path:
    """In a directory whose name is short enough for a socket."""
    return own_server.directory / "front.sock"


def web(home: Path, server: RealServer, path: Path, *arguments: str, **more: str) -> Command:
    environment = {"REDIS_URL": server.url, "BRIDGE_AUTH": "off", "HOST": f"unix:{path}", **more}
    return Command(home, *(arguments or ("web",)), **environment)


def status(path: Path, route: str = "/readyz", host: str = "localhost") -> int:
    """Of a new connection; 0 if nobody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)):
            return 0
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as http:
        return http.get(f"http://{host}{route}").status_code


@pytest.fixture(params=[("web",), ("web", "--workers", "2"), ("up",)], ids=" ".join)
def front(request: pytest.FixtureRequest, tmp_path: Path, own_server: RealServer, path: Path) -> Command:
    command = web(tmp_path, own_server, path, *request.param, BRIDGE_DRAIN_SECONDS="0.5")
    eventually(lambda: status(path) == 200, "it is ready")
    return command


def test_it_serves_streams_and_drains_and_removes_its_socket(front: Command, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert status(path, "/docs") == 200
    assert status(path, "/v1/cvms", "rebound.example") == 421
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as http:
        streams = [http.stream("GET", "http://localhost/v1/events?snapshot=0") for _ in range(8)]
        opened = [(each, each.__enter__().iter_lines()) for each in streams]
        for _, lines in opened:
            assert next(lines) == "retry: 3000"
        front.process.send_signal(signal.SIGTERM)
        for each, lines in opened:
            assert any(line.startswith("retry: ") for line in lines)  # raises if it does not end properly
            each.__exit__(None, None, None)
    assert front.ends() == 0
    assert not path.exists()
    assert "Traceback" not in front.errors


def test_clients_find_it_by_its_path(tmp_path: Path, own_server: RealServer, path: Path) -> None:
    up = web(tmp_path, own_server, path, "up")
    url = up.shows(r"webhooks +bridge listen --url (\S+)")
    assert url == f"unix:{path}"
    assert f"curl -N --unix-socket {path} http://localhost/v1/events" in up.output
    tail, listen = Command(tmp_path, "tail", "--url", url), Command(tmp_path, "listen", "--url", url)
    tail.shows('"type":"cvm\\.')
    listen.shows("is registered at unix:")
    assert [tail.ends(signal.SIGINT), listen.ends(signal.SIGINT), up.ends(signal.SIGTERM)] == [0, 0, 0]
    assert "is unregistered" in listen.errors


def test_a_stale_socket_is_replaced_and_nothing_else_is(tmp_path: Path, own_server: RealServer, path: Path) -> None:
    first = web(tmp_path, own_server, path)
    eventually(lambda: status(path) == 200, "it is ready")
    for arguments in (("web",), ("web", "--workers", "2")):
        second = web(tmp_path, own_server, path, *arguments)
        assert second.ends() == 1
        assert second.errors == f"unix:{path} is in use: set HOST to another path\n"
    assert status(path) == 200
    first.process.kill()
    first.ends()
    assert path.exists()
    third = web(tmp_path, own_server, path)
    eventually(lambda: status(path) == 200, "the next one is ready")
    # Another one has taken the path meanwhile: the file is not this one's to remove.
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert third.ends(signal.SIGTERM) == 0
        assert path.exists()


def test_a_path_that_cannot_be_used_is_one_line(tmp_path: Path, own_server: RealServer, path: Path) -> None:
    path.write_text("mine")
    faults = {
        path: "the file is no socket",
        path.parent / "none" / "front.sock": "No such file or directory",
        path.parent / ("x" * 120): "path too long",
    }
    for each, fault in faults.items():
        command = web(tmp_path, own_server, each)
        assert command.ends() == 1
        assert fault in command.errors
        assert command.errors.count("\n") == 1
    assert path.read_text() == "mine"
