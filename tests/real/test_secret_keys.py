"""Processes whose secret key does not open what Redis holds, and `bridge up` that lost its key."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from bridge.sealing import Sealer, new_key
from bridge.store.connection import connect
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.key_check import KeyCheck
from tests.commands import Command, Start
from tests.probes import readiness
from tests.servers import eventually, free_port

KEY = new_key()


@pytest.fixture
def start(tmp_path: Path, redis_url: str) -> Start:
    """Starts commands that share a Redis and a state directory."""
    return partial(Command, tmp_path, REDIS_URL=redis_url)


def register(redis_url: str, *names: str, key: str = KEY) -> None:
    """Endpoints as a front end with this key makes them."""

    async def create() -> None:
        backend, sealer = connect(redis_url, "bridge"), Sealer([SecretStr(key)])
        for name in names or ("e",):
            secret = SealedSecret(sealer.seal("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
            endpoint = Endpoint(name, sealer.seal("http://127.0.0.1:9/"), secrets_sealed=(secret,))
            await Endpoints(backend, key=KeyCheck(backend, sealer)).create(endpoint)
        await backend.close()

    asyncio.run(create())


@pytest.mark.parametrize("arguments", [("dispatcher",), ("web",), ("web", "--workers", "2"), ("up",)], ids=" ".join)
def test_a_role_with_a_wrong_key_does_not_start(start: Start, redis_url: str, arguments: tuple[str, ...]) -> None:
    register(redis_url)
    command = start(*arguments, BRIDGE_SECRET_KEY=new_key(), BRIDGE_AUTH="off", PORT="0")
    assert command.ends() == 1
    assert command.errors.startswith("BRIDGE_SECRET_KEY does not open what is sealed in 1 of 1 webhook endpoints")
    assert command.errors.count("\n") == 1


def test_a_key_that_becomes_wrong_makes_running_roles_unready_until_it_is_right_again(
    start: Start, redis_url: str
) -> None:
    ports = free_port(), free_port()
    dispatcher = start("dispatcher", BRIDGE_SECRET_KEY=KEY, BRIDGE_PROBE_PORT=str(ports[0]))
    given = {"BRIDGE_WEBHOOK_ALLOW": "127.0.0.1", "BRIDGE_AUTH": "off", "HOST": "127.0.0.1"}
    web = start("web", BRIDGE_SECRET_KEY=KEY, PORT=str(ports[1]), **given)
    for port in ports:
        eventually(lambda port=port: readiness(port)[0] == 200, "ready")  # type: ignore[misc]
    register(redis_url, key=new_key())
    for port in ports:
        eventually(lambda port=port: readiness(port)[0] == 503, "not ready")  # type: ignore[misc]
        assert "BRIDGE_SECRET_KEY does not open" in readiness(port)[1]
    for command in (dispatcher, web):
        command.shows("webhooks that are sealed with another key get nothing")
    answer = httpx.post(f"http://127.0.0.1:{ports[1]}/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
    assert answer.json()["type"] == "urn:bridge:problem:no-secret-key"
    assert httpx.delete(f"http://127.0.0.1:{ports[1]}/v1/webhooks/e").status_code == 204
    for port in ports:
        eventually(lambda port=port: readiness(port)[0] == 200, "ready again")  # type: ignore[misc]


def test_bridge_up_that_lost_its_key_file_stops_and_makes_no_other(
    start: Start, tmp_path: Path, redis_url: str
) -> None:
    path = tmp_path / "bridge" / "secret.key"
    first = start("up", PORT="0")
    first.shows("is up")
    assert path.exists()
    register(redis_url, key=path.read_text().strip())
    first.process.terminate()
    assert first.ends() == 0
    kept = path.with_name("kept")
    path.rename(kept)
    second = start("up", PORT="0")
    assert second.ends() == 1
    assert f"{path} is gone, and 1 webhook endpoint(s)" in second.errors
    assert second.errors.count("\n") == 1
    assert not path.exists()
    kept.rename(path)
    start("up", PORT="0").shows("is up")


def test_check_tells_whether_the_key_opens_what_is_sealed(start: Start, redis_url: str) -> None:
    register(redis_url, "a", "b")
    right, wrong, none = (
        start("check", **given) for given in ({"BRIDGE_SECRET_KEY": KEY}, {"BRIDGE_SECRET_KEY": new_key()}, {})
    )
    assert right.ends() == 0
    assert "ok       the secret key opens what is sealed in 2 endpoint(s)" in right.output
    assert wrong.ends() == 1
    assert "WRONG    BRIDGE_SECRET_KEY does not open what is sealed in 2 of 2" in wrong.output
    assert none.ends() == 0
    assert "BRIDGE_SECRET_KEY is not set" in none.output


def test_a_key_is_replaced_beside_running_roles_and_the_old_one_leaves(start: Start, redis_url: str) -> None:
    register(redis_url, "a", "b")
    new, port = new_key(), free_port()
    both = f"{new},{KEY}"
    start("dispatcher", BRIDGE_SECRET_KEY=both, BRIDGE_PROBE_PORT=str(port))
    eventually(lambda: readiness(port)[0] == 200, "ready")
    counted = start("keys", "rotate", "--dry-run", BRIDGE_SECRET_KEY=both)
    assert counted.ends() == 1
    assert "2 still need(s) another key than the first" in counted.errors
    rotated = start("keys", "rotate", BRIDGE_SECRET_KEY=both)
    assert rotated.ends() == 0
    assert "2 webhook endpoint(s), 2 sealed anew" in rotated.output
    assert "the others may leave" in rotated.output
    assert start("check", BRIDGE_SECRET_KEY=new).ends() == 0
    assert start("check", BRIDGE_SECRET_KEY=KEY).ends() == 1
    assert readiness(port)[0] == 200


def test_webhooks_whose_key_is_lost_can_be_deleted(start: Start, tmp_path: Path) -> None:
    """With the embedded server, which does not run then because `bridge up` does not start."""
    given = {"PORT": "0", "REDIS_URL": ""}
    first = start("up", **given)
    address = first.shows(r"address +(http://\S+)\n")
    assert httpx.put(f"{address}/v1/webhooks/mine", json={"url": "http://127.0.0.1:9/"}).status_code == 201
    checked = start("check", REDIS_URL="")
    assert checked.ends() == 0
    assert "the secret key opens what is sealed in 1 endpoint(s)" in checked.output
    first.process.terminate()
    assert first.ends() == 0
    (tmp_path / "bridge" / "secret.key").unlink()
    assert start("up", **given).ends() == 1
    forgot = start("keys", "forget", "--yes", REDIS_URL="")
    assert forgot.ends() == 0
    assert "1 webhook endpoint(s) deleted" in forgot.output
    start("up", **given).shows("is up")
