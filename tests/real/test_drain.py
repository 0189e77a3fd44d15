"""What a front end does between a signal and its end, as a load balancer and its clients see it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.commands import Command
from tests.probes import status
from tests.servers import RealServer, eventually, free_port

ROLES = (("web",), ("web", "--workers", "2"), ("up",))


def draining(seconds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("front", [(*role, seconds) for role in ROLES], indirect=True, ids=" ".join)


@pytest.fixture
def front(request: pytest.FixtureRequest, tmp_path: Path, own_server: RealServer) -> tuple[Command, str]:
    """A front end of the role that drains for so many seconds, and its URL."""
    *role, drain = request.param
    port = free_port()
    environment = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": str(port)}
    command = Command(tmp_path, *role, BRIDGE_DRAIN_SECONDS=drain, **environment)
    url = f"http://127.0.0.1:{port}"
    if "--workers" in role:
        command.shows(r"(?s)listening.*listening")
    eventually(lambda: status(f"{url}/readyz") == 200, "it is ready")
    return command, url


@draining("600")
def test_it_answers_while_it_drains_and_a_second_signal_ends_it(front: tuple[Command, str]) -> None:
    command, url = front
    with httpx.Client() as kept:
        assert "connection" not in kept.get(f"{url}/healthz").headers
        command.process.send_signal(signal.SIGTERM)
        eventually(lambda: status(f"{url}/readyz") == 503, "the drain")
        for _ in range(10):
            assert status(f"{url}/v1/cvms") == 200
            time.sleep(0.05)
        for _ in range(2):
            answer = kept.get(f"{url}/readyz")
            assert (answer.status_code, answer.json()["reason"], answer.headers["connection"]) == (
                *(503, "draining"),
                "close",
            )
        refused = kept.get(f"{url}/v1/events", headers={"Accept": "text/event-stream;status=1"})
        assert (refused.status_code, int(refused.headers["retry-after"]) <= 2) == (503, True)
    assert command.ends(signal.SIGTERM) == 128 + signal.SIGTERM
    eventually(lambda: status(f"{url}/healthz") == 0, "nobody listens")


@draining("0.5")
def test_it_ends_by_itself_after_the_drain(front: tuple[Command, str]) -> None:
    command, url = front
    assert command.ends(signal.SIGTERM) == 0
    assert status(f"{url}/healthz") == 0
    assert "Traceback" not in command.errors


@draining("600")
def test_an_interrupt_ends_it_without_the_drain(front: tuple[Command, str]) -> None:
    command, url = front
    with httpx.stream("GET", f"{url}/v1/events?snapshot=0") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 3000"
        command.process.send_signal(signal.SIGINT)
        rest = [*lines]  # raises if the response does not end properly
    assert any(line.startswith("retry: ") for line in rest)
    assert command.ends() == 0
    assert "Traceback" not in command.errors
