"""`bridge listen`: it registers itself, verifies, prints, answers badly on request, and unregisters itself."""

from __future__ import annotations

import json
import re
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from bridge.commands.listen import Received, received_line
from bridge.config import Settings
from tests.commands import Command
from tests.servers import RealServer, eventually, free_port
from tests.threaded_receiver import Post, Reply, receiving_posts

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, redis_server: RealServer) -> Iterator[httpx.Client]:
    """A client with an admin token, for a `bridge up` with quick retries that all tests here share."""
    port = free_port()
    environment = {
        "PORT": str(port),
        "REDIS_URL": redis_server.url,
        "BRIDGE_NAMESPACE": "listening",
        "BRIDGE_TOKENS": "me:me-token:admin reader:read-token:read",
        "BRIDGE_WEBHOOK_RETRY": "0.1,0.1,0.1,0.1",
    }
    bridge = Command(tmp_path_factory.mktemp("up"), "up", **environment)
    try:
        bridge.shows("is up")
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer me-token"}, trust_env=False
        ) as client:
            yield client
    finally:
        assert bridge.ends(signal.SIGTERM) == 0, bridge.errors


def listener(home: Path, up: httpx.Client, *arguments: str, token: str = "me-token") -> Command:
    return Command(home, "listen", "--url", str(up.base_url), *arguments, BRIDGE_TOKEN=token)


def lines(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command.output.splitlines()]


def test_it_registers_receives_verifies_and_unregisters(tmp_path: Path, up: httpx.Client) -> None:
    command = listener(tmp_path, up, "--to", "running", "--to", "stopped", "--format", "phala")
    made = command.shows(r"registered at http\S+ as (wh_\w+)")
    shown = up.get(f"/v1/webhooks/{made}").json()
    assert (shown["to"], shown["format"], shown["types"]) == (["running", "stopped"], "phala", ["cvm.transition"])
    assert up.post(f"/v1/webhooks/{made}/test").status_code == 202
    eventually(lambda: len(lines(command)) >= 1, "the test event in the pipe")
    first = next(line for line in lines(command) if line["body"]["event"] == "webhook.test")
    assert (first["verified"], first["fault"], first["status"], first["attempt"]) == (True, None, 200, 1)
    assert first["webhook_id"].startswith(made)
    assert command.ends(signal.SIGINT) == 0
    assert f"{made} is unregistered" in command.errors
    assert up.get("/v1/webhooks").json()["items"] == []


def test_it_fails_on_request_and_the_bridge_tries_again_with_the_same_id(tmp_path: Path, up: httpx.Client) -> None:
    command = listener(tmp_path, up, "--status", "503", "--delay", "0.1")
    made = command.shows(r"as (wh_\w+)")

    def tried_again() -> bool:
        return any(line["attempt"] >= 2 for line in lines(command))

    # The simulator's lives bring a transition within seconds.
    eventually(tried_again, "a second attempt")
    assert {line["status"] for line in lines(command)} == {503}
    found = up.get(f"/v1/webhooks/{made}/deliveries").json()["items"]
    attempts = [attempt for delivery in found for attempt in delivery["attempts"]]
    assert {attempt["status_code"] for attempt in attempts} == {503}
    assert all(attempt["duration_ms"] >= 100 for attempt in attempts)
    assert command.ends(signal.SIGTERM) == 0


def test_a_request_with_another_signature_is_401_and_shown(tmp_path: Path, up: httpx.Client) -> None:
    command = listener(tmp_path, up)
    address = command.shows(r"(http\S+) is registered")
    headers = {"webhook-id": "x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
    with httpx.Client(trust_env=False) as stranger:
        assert stranger.post(address, json={"type": "x"}, headers=headers).status_code == 401
        assert stranger.post(address, content=b"a" * (3 << 20)).status_code == 413
    eventually(lambda: any(not line["verified"] for line in lines(command)), "the stranger in the pipe")
    stranger_line = next(line for line in lines(command) if not line["verified"])
    assert (stranger_line["fault"], stranger_line["status"]) == ("webhook-signature does not fit", 401)
    assert command.ends(signal.SIGINT) == 0


def test_it_ends_with_a_line_once_its_endpoint_is_gone(tmp_path: Path, up: httpx.Client) -> None:
    command = listener(tmp_path, up)
    made = command.shows(r"as (wh_\w+)")
    assert up.delete(f"/v1/webhooks/{made}").status_code == 204
    assert command.ends() == 1
    assert f"{made} is gone" in command.errors
    assert "Traceback" not in command.errors


def test_it_tells_that_it_is_disabled_and_that_it_is_not_any_longer(tmp_path: Path, up: httpx.Client) -> None:
    command = listener(tmp_path, up, "--status", "410")
    made = command.shows(r"as (wh_\w+)")
    assert up.post(f"/v1/webhooks/{made}/test").status_code == 202
    command.shows(rf"{made} is disabled \(the receiver answered 410 Gone\): POST http\S+/enable")
    up.patch(f"/v1/webhooks/{made}", json={"types": ["watch.dropped"]})  # nothing that would disable it again
    up.post(f"/v1/webhooks/{made}/enable")
    command.shows(f"{made} is delivered to again")
    assert command.ends(signal.SIGINT) == 0
    assert up.get("/v1/webhooks").json()["items"] == []


def test_a_failed_registration_is_one_line_that_tells_what_helps(tmp_path: Path, up: httpx.Client) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    refusals = (
        ((), "wrong", "scope admin"),
        ((), "read-token", "scope admin"),
        (("--address", "http://10.0.0.1/"), "me-token", "BRIDGE_WEBHOOK_ALLOW"),
        (("--url", nobody), "me-token", "cannot be reached"),
        (("--type", "nonsense"), "me-token", "types"),
    )
    commands = [listener(tmp_path, up, *arguments, token=token) for arguments, token, _ in refusals]
    for command, (_, token, said) in zip(commands, refusals, strict=True):
        assert command.ends() == 1
        assert said in command.errors
        assert len(command.errors.strip().splitlines()) == 1, command.errors
        assert token not in command.errors
    assert up.get("/v1/webhooks").json()["items"] == []


@contextmanager
def local_receiver() -> Iterator[tuple[str, list[Post]]]:
    """Its URL, and what it got. It answers 409 with a header and a body."""
    got: list[Post] = []

    def answer(post: Post) -> Reply:
        got.append(post)
        return Reply(409, {"X-Mine": "yes"}, b"not today")

    with receiving_posts(answer) as url:
        yield f"{url}/hook?key=1", got


def attempt_of(up: httpx.Client, delivery_id: str) -> dict[str, Any]:
    eventually(lambda: up.get(f"/v1/deliveries/{delivery_id}").json()["attempts"], "the attempt")
    attempts: list[dict[str, Any]] = up.get(f"/v1/deliveries/{delivery_id}").json()["attempts"]
    return attempts[0]


def test_it_posts_what_it_verified_on_and_answers_as_it_was_answered(tmp_path: Path, up: httpx.Client) -> None:
    with local_receiver() as (url, got):
        command = listener(tmp_path, up, "--forward-to", url, "--type", "watch.stale")
        secret = command.shows(r"signed with (whsec_\S+)")
        address = command.shows(r"(http\S+) is registered")
        made = command.shows(r"as (wh_\w+)")
        with httpx.Client(trust_env=False) as stranger:
            assert stranger.post(address, json={"type": "x"}).status_code == 401
        tested = up.post(f"/v1/webhooks/{made}/test").json()["id"]
        attempt = attempt_of(up, tested)
        assert (attempt["status_code"], attempt["response_body"]) == (409, "not today")
        (post,) = got
        headers = post.headers
        assert Webhook(secret).verify(post.body, dict(headers.items()))["type"] == "webhook.test"
        assert headers["webhook-id"] == tested
        assert headers["content-type"] == "application/json"
        assert [line["status"] for line in lines(command) if line["verified"]] == [409]
        assert command.ends(signal.SIGINT) == 0


def test_a_receiver_that_is_not_there_is_502_and_a_wrong_url_is_told(tmp_path: Path, up: httpx.Client) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    command = listener(tmp_path, up, "--forward-to", nobody, "--type", "watch.stale")
    made = command.shows(r"as (wh_\w+)")
    attempt = attempt_of(up, up.post(f"/v1/webhooks/{made}/test").json()["id"])
    assert attempt["status_code"] == 502
    assert "did not answer" in attempt["response_body"]
    assert command.ends(signal.SIGINT) == 0
    for arguments in (("--forward-to", "ftp://x/"), ("--forward-to", nobody, "--status", "200")):
        wrong = listener(tmp_path, up, *arguments)
        assert wrong.ends() == 2
        assert "--forward-to takes" in wrong.errors


def received(body: object, **given: Any) -> str:
    fields = {"at": "2026-11-24T16:00:00.000Z", "webhook_id": "d", "attempt": 1, "fault": None, "status": 200}
    return ANSI.sub("", received_line(Received(**{**fields, **given}, body=body)))


def test_a_line_for_people_shows_the_change_in_every_format() -> None:
    change = {"from": "starting", "to": "running"}
    time, named = "2026-11-24T16:01:59.319Z", {"name": "web-1", **change}
    bodies: list[dict[str, Any]] = [
        {"type": "cvm.transition", "timestamp": time, "data": named},
        {"specversion": "1.0", "type": "cvm.transition", "time": time, "subject": "x", "data": named},
        {"event": "cvm.started", "created_at": time, "data": {"cvm_name": "web-1", "cvm_id": "x", **change}},
    ]
    assert {received(body) for body in bodies} == {"16:01:59  web-1                starting → running  200"}
    assert received(bodies[0], attempt=3, status=500).endswith("running  500 (attempt 3)")
    assert received(bodies[0], fault="webhook-signature does not fit", status=401).endswith(
        "401  webhook-signature does not fit"
    )


@pytest.mark.parametrize("body", [None, [], "\x1b[31m", {}, {"data": 5, "type": "\x1b[31m"}, {"type": "webhook.test"}])
def test_a_line_for_people_is_harmless_whatever_the_body(body: object) -> None:
    assert "\x1b" not in received(body)


def test_a_line_for_machines_is_one_line() -> None:
    line = Received("t", "d", 1, None, 200, {"a": "\u2028\n"}).to_json()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["body"] == {"a": "\u2028\n"}


def test_bridge_up_keeps_its_own_key_so_that_endpoints_survive_a_restart(tmp_path: Path, redis_url: str) -> None:
    port = free_port()
    shown = []
    for _ in range(2):
        bridge = Command(tmp_path, "up", PORT=str(port), REDIS_URL=redis_url)
        bridge.shows("is up")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            answer = client.put("/v1/webhooks/mine", json={"url": "http://localhost:9/hook", "enabled": False})
            shown.append((answer.status_code, answer.json()["url"]))
        assert bridge.ends(signal.SIGTERM) == 0
    assert shown == [(201, "http://localhost:9/hook"), (200, "http://localhost:9/hook")]
    key = tmp_path / "bridge" / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.write_text("broken")
    bridge = Command(tmp_path, "up", PORT=str(port), REDIS_URL=redis_url)
    assert bridge.ends() == 1
    assert "secret.key does not hold a Fernet key" in bridge.errors


def test_keygen_prints_a_valid_secret_key(tmp_path: Path) -> None:
    command = Command(tmp_path, "keygen")
    assert command.ends() == 0
    key = command.output.strip()
    given: Any = {"secret_key": key}
    assert Settings(**given).secret_key[0].get_secret_value() == key
