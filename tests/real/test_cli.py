"""The commands as processes: arguments, output, exit status."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from bridge import __version__
from tests.commands import Command, Start
from tests.probes import status
from tests.prometheus import promtool
from tests.servers import PATIENCE, RealServer, eventually, free_port


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts commands that share one state directory."""
    return partial(Command, tmp_path)


def up(start: Start, **environment: str) -> tuple[Command, str]:
    """A `bridge up` that listens, and its address."""
    command = start("up", **{"PORT": "0", **environment})
    return command, command.shows(r"address +(http://\S+)\n")


def blocks(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) of each block with data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@contextlib.contextmanager
def events(address: str, path: str = "/v1/events", **headers: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    with httpx.stream("GET", address + path, headers=headers, timeout=PATIENCE) as response:
        assert response.status_code == 200
        yield blocks(response.iter_lines())


def sequence(address: str) -> int:
    """The log's last sequence that a front end shows."""
    with events(address, "/v1/events?snapshot=0") as found:
        name, data = next(found)
    assert name == "position"
    return int(data["sequence"])


def test_up_shows_its_address_and_a_subscriber_gets_snapshots_and_then_changes(start: Start) -> None:
    command, address = up(start)
    assert f"curl -N {address}/v1/events\n" in command.output
    assert "SIMULATED" in command.output
    assert "OPEN" in command.output
    eventually(lambda: sequence(address) >= 12, "the first sight of twelve CVMs")
    with events(address) as found:
        assert next(found)[0] == "snapshot"
        name, change = next((name, data) for name, data in found if name in ("transition", "state"))
    assert change["data"]["to"]
    assert name in change["type"]


def test_redis_consumers_see_consecutive_sequences_in_the_log(start: Start) -> None:
    command, address = up(start)
    url = command.shows(r"redis-cli -u (\S+) SUBSCRIBE '\{bridge\}:events'")
    eventually(lambda: sequence(address) >= 12, "the first events")
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries: Any = client.xrange("{bridge}:log")
    assert [json.loads(fields["event"])["sequence"] for _, fields in entries] == [
        f"{number:016d}" for number in range(1, len(entries) + 1)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_up_cleanly_with_a_subscriber_connected(start: Start, number: signal.Signals) -> None:
    command, address = up(start, BRIDGE_DRAIN_SECONDS="0.2")
    eventually(lambda: sequence(address) > 0, "an event")
    with events(address) as found:
        next(found)
        assert command.ends(number) == 0
    assert "Traceback" not in command.errors


def test_a_second_up_on_the_same_data_ends_with_one_line(start: Start) -> None:
    first, _ = up(start)
    second = start("up", PORT="0")
    assert second.ends() == 1
    assert f"in use by process {first.process.pid}" in second.errors
    assert second.errors.count("\n") == 1
    assert first.process.poll() is None


def test_the_next_start_keeps_the_history(start: Start) -> None:
    first, address = up(start)
    eventually(lambda: sequence(address) >= 12, "the first events")
    before = sequence(address)
    assert first.ends(signal.SIGTERM) == 0
    _, address = up(start)
    assert sequence(address) >= before
    eventually(lambda: sequence(address) > before, "an event after the restart")


def test_a_killed_embedded_server_ends_up_with_one_line(start: Start, tmp_path: Path) -> None:
    command, _ = up(start)
    with redis.Redis.from_url(f"unix://{tmp_path}/bridge/redis/s.sock", decode_responses=True) as client:
        info: Any = client.info("server")
    os.kill(info["process_id"], signal.SIGKILL)
    assert command.ends() == 1
    assert "the embedded Redis server ended unexpectedly (SIGKILL)" in command.errors
    assert "Traceback" not in command.errors


def test_a_port_that_is_taken_is_one_line(start: Start, redis_server: RealServer, redis_url: str) -> None:
    _, address = up(start, REDIS_URL=redis_url)
    second = start("up", PORT=address.rpartition(":")[2], REDIS_URL=redis_url)
    assert second.ends() == 1
    assert "is in use: set PORT to another port" in second.errors
    assert "Traceback" not in second.errors


def test_wrong_settings_are_one_line_each(start: Start) -> None:
    command = start("up", PORT="many", BRIDGE_STREAM_INTERVAL="1", REDIS_URL="mysql://secret-place")
    assert command.ends() == 1
    lines = command.errors.splitlines()
    assert [line.split()[0] for line in lines] == ["REDIS_URL", "PORT", "BRIDGE_STREAM_INTERVAL"]
    assert "secret-place" not in command.errors


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["web"], {"REDIS_URL": "redis://127.0.0.1:1/0"}, "BRIDGE_TOKENS"),
        (["web"], {"BRIDGE_AUTH": "off"}, "REDIS_URL"),
        (["upstream"], {"PHALA_CLOUD_API_KEY": "k"}, "REDIS_URL"),
        (["upstream"], {"REDIS_URL": "redis://127.0.0.1:1/0"}, "PHALA_CLOUD_API_KEY"),
        (["up"], {"HOST": "0.0.0.0"}, "BRIDGE_TOKENS"),  # noqa: S104
    ],
)
def test_a_missing_setting_is_one_line(
    start: Start, arguments: list[str], environment: dict[str, str], named: str
) -> None:
    command = start(*arguments, **environment)
    assert command.ends() == 1
    assert command.errors.startswith(f"{named} is not set")
    assert command.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("up", "NO_PROXY", "localhost,[::1]"),
        ("tail", "https_proxy", "socks5://127.0.0.1:1"),
        ("listen", "HTTPS_PROXY", "proxy:port"),
        ("check", "NO_PROXY", "fd00::/8"),
    ],
)
def test_a_proxy_variable_that_cannot_be_used_is_one_line(start: Start, command: str, name: str, value: str) -> None:
    ended = start(command, **{name: value})
    assert ended.ends() == 1
    assert [line.split()[0] for line in ended.errors.splitlines()] == [name]


def test_upstream_and_web_wait_for_redis_and_are_ready_once_it_answers(start: Start) -> None:
    server = RealServer(tcp=True)
    probe, port = free_port(), free_port()
    common = {"REDIS_URL": server.url, "BRIDGE_LOG_FORMAT": "json"}
    upstream = start("upstream", PHALA_CLOUD_API_KEY="k", BRIDGE_PROBE_PORT=str(probe), **common)
    web = start("web", BRIDGE_AUTH="off", PORT=str(port), HOST="127.0.0.1", BRIDGE_DRAIN_SECONDS="0.2", **common)
    places = [f"http://127.0.0.1:{probe}", f"http://127.0.0.1:{port}"]
    for command, place in zip([upstream, web], places, strict=True):
        command.shows("waiting for Redis")
        eventually(lambda place=place: status(f"{place}/readyz") == 503, "not ready")  # type: ignore[misc]
        assert status(f"{place}/healthz") == 200
    with server:
        for place in places:
            eventually(lambda place=place: status(f"{place}/readyz") == 200, "ready")  # type: ignore[misc]
        page = httpx.get(f"{places[0]}/metrics").text
        assert "bridge_leader" in page
        assert promtool("check", "metrics", given=page) == ""
        for command in (upstream, web):
            assert command.ends(signal.SIGTERM) == 0
            assert "Traceback" not in command.errors


def test_tail_in_a_pipe_prints_one_envelope_a_line_and_ends_with_ctrl_c(start: Start) -> None:
    _, address = up(start)
    eventually(lambda: sequence(address) > 0, "an event")
    tail = start("tail", "--url", address)
    eventually(lambda: len(tail.out) >= 3, "three lines")
    assert tail.ends(signal.SIGINT) == 0
    assert all(json.loads(line)["specversion"] == "1.0" for line in tail.out)
    assert tail.errors == ""


def test_tail_resumes_without_a_gap_after_a_restart_of_the_bridge(start: Start) -> None:
    port = str(free_port())
    first, address = up(start, PORT=port, BRIDGE_DRAIN_SECONDS="0.2")
    eventually(lambda: sequence(address) >= 12, "the first events")
    tail = start("tail", "--url", address)
    eventually(lambda: len(tail.out) >= 12, "the snapshot")
    assert first.ends(signal.SIGTERM) == 0
    up(start, PORT=port)
    seen = len(tail.out)
    eventually(lambda: len(tail.out) >= seen + 3, "events after the restart")
    assert tail.ends(signal.SIGINT) == 0
    logged = [int(event["sequence"]) for event in map(json.loads, tail.out) if event["type"] != "cvm.snapshot"]
    assert logged == list(range(logged[0], logged[0] + len(logged)))


def test_tail_ends_without_an_error_when_its_reader_is_gone(start: Start, tmp_path: Path) -> None:
    _, address = up(start)
    eventually(lambda: sequence(address) >= 12, "the first events")
    shell = f"{sys.executable} -m bridge tail --url {address} | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        ["/bin/sh", "-c", shell],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_tail_shows_a_refusal_in_one_line(start: Start) -> None:
    _, address = up(start, BRIDGE_TOKENS="me:secret:read")
    without = start("tail", "--url", address)
    assert without.ends() == 1
    assert "BRIDGE_TOKEN" in without.errors
    assert without.errors.count("\n") == 1
    unknown = start("tail", "no-such-cvm", "--url", address, BRIDGE_TOKEN="secret")
    assert unknown.ends() == 1
    assert "404" in unknown.errors
    bad_time = start("tail", "--since", "yesterday", "--url", address, BRIDGE_TOKEN="secret")
    assert bad_time.ends() == 1
    assert "422" in bad_time.errors


def test_check_shows_masked_settings_and_finds_errors(start: Start) -> None:
    good = start("check")
    assert good.ends() == 0, good.output
    bad = start(
        "check",
        REDIS_URL="redis://:canary@127.0.0.1:1/0",
        PHALA_CLOUD_API_KEY="canary",
        PHALA_CLOUD_API_PREFIX="http://127.0.0.1:1/api/v1",
    )
    assert bad.ends() == 1
    assert bad.output.count("WRONG") == 2
    assert "canary" not in bad.output + bad.errors
    assert re.search(r"PHALA_CLOUD_API_KEY +\*\*\* +environment", bad.output)


def test_check_shows_the_leader_and_the_held_slots(start: Start) -> None:
    _, address = up(start)
    eventually(lambda: sequence(address) >= 12, "the first events")

    def held() -> str:
        command = start("check")
        assert command.ends() == 0, command.output + command.errors
        return command.output

    eventually(lambda: "12, of which 7 polled" in held(), "the leader's status")
    shown = held()
    assert shown.count(" held ") == 5
    assert f"versions up {__version__}\n" in shown


def test_simulate_accepts_any_key_and_ends_cleanly(start: Start) -> None:
    command = start("simulate", "--port", "0", "--cvms", "3")
    prefix = command.shows(r"PHALA_CLOUD_API_PREFIX=(\S+)")
    checked = start("check", PHALA_CLOUD_API_KEY="any", PHALA_CLOUD_API_PREFIX=prefix)
    assert checked.ends() == 0
    assert "3 CVM(s)" in checked.output
    assert command.ends(signal.SIGTERM) == 0
    assert command.errors == ""


def test_a_second_signal_ends_at_once(start: Start) -> None:
    command, address = up(start, BRIDGE_DRAIN_SECONDS="60")
    eventually(lambda: sequence(address) > 0, "an event")
    with events(address) as found, events(address) as other:
        next(found)
        next(other)  # two, since the drain lets the first go at once and the second half a minute later
        command.process.send_signal(signal.SIGTERM)
        eventually(lambda: status(f"{address}/readyz") != 200, "the end begun")
        assert command.ends(signal.SIGTERM) == 128 + signal.SIGTERM


def test_help_has_examples(start: Start) -> None:
    command = start("--help")
    assert command.ends() == 0
    assert "curl -N http://127.0.0.1:8000/v1/events" in command.output
