"""`bridge check`: what it advises about each fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.commands.check import _check_keys
from bridge.commands.remedies import redis_remedy, slot_notes, version_lines
from bridge.config import Settings
from bridge.sealing import Sealer, new_key
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.key_check import KeyCheck
from bridge.store.rights import rights
from bridge.store.slots import SlotRecord
from tests.fakes import fake_backend

PLAIN, TLS = "redis://me:canary@h:1/0", "rediss://me:canary@h:1/0"
CLUSTER, NOBODY = "redis+cluster://me:canary@h:1", "redis://h:1"
OUT = "Redis is out of reach"


@pytest.mark.parametrize(
    ("trouble", "url", "advised"),
    [
        ("Redis refused: User me has no permissions to run the 'evalsha' command", PLAIN, "ACL SETUSER me resetkeys"),
        ("Redis refused: No permissions to access a key", NOBODY, "ACL SETUSER default resetkeys ~{ns}:* resetc"),
        ("Redis refused: ACL failure in script: User me has no", CLUSTER, "+cluster|slots"),
        (f"{OUT} (AuthenticationError)", PLAIN, "ACL SETUSER bridge on >password resetkeys ~{ns}:*"),
        (f"{OUT} (certificate verify failed: self-signed certificate)", TLS, "ssl_ca_certs="),
        (f"{OUT} (ConnectionError)", TLS, "ssl_certfile"),
        (f"{OUT} (ConnectionError)", PLAIN, "begins with rediss"),
        ("Redis did not answer within 5 s", TLS, "does it speak TLS on this port"),
        ("REDIS_URL cannot be used: its scheme is not one of these", "http://canary", "is it running"),
    ],
)
def test_each_fault_of_redis_has_its_mend_and_no_password_is_shown(trouble: str, url: str, advised: str) -> None:
    lines = "\n".join(redis_remedy(trouble, url, "ns"))
    assert advised in lines
    assert "canary" not in lines


def test_the_rights_are_those_of_the_contract() -> None:
    told = "\n".join(rights("bridge", "bridge", cluster=True, new=True))
    assert f"```\n{told}\n```" in Path("docs/contract.md").read_text()


def slot(index: int, state: Any, holder: str | None = None) -> SlotRecord:
    return SlotRecord(index, state, "cvm", holder, 1, "since", f"2026-11-24T16:0{index}:00Z")


@pytest.mark.parametrize(
    ("slots", "status", "advised"),
    [
        ([slot(0, "held", "a"), slot(1, "settling", "a"), slot(2, "free")], {"leader": "a", "budget": 5}, []),
        ([slot(1, "quarantined", "b"), slot(2, "quarantined", "b")], {"leader": "a"}, ["2 slot(s) are of a leader"]),
        ([slot(1, "quarantined", "b")], {}, ["1 slot(s) are of a leader that has vanished: they are free at"]),
        ([], {"budget": 3, "budget_reason": "rate_limited"}, ["upstream refuses further streams: another program"]),
        ([], {"budget": 5, "budget_reason": "rate_limited"}, []),
        ([], {"budget": 0, "budget_reason": "rate_limited", "blocked": True}, ["upstream refuses the leader's"]),
    ],
)
def test_each_reason_for_too_few_streams_has_its_mend(
    slots: list[SlotRecord], status: dict[str, Any], advised: list[str]
) -> None:
    notes = slot_notes(slots, status, 5)
    assert len(notes) == len(advised)
    assert all(note.startswith(begin) for note, begin in zip(notes, advised, strict=True))


@pytest.mark.parametrize(
    ("seen", "lines"),
    [
        ([], []),
        ([("up", "1.0")], ["versions up 1.0"]),
        ([("upstream", "1.0"), ("web", "0.9"), ("web", "1.0")], ["versions upstream 1.0, web 0.9, web 1.0", "note "]),
        ([("web\x1b", "1.1")], ["versions web\\x1b 1.1", "note     this command is 1.0: bring all to one version"]),
    ],
)
def test_roles_of_several_versions_are_a_note(seen: list[tuple[str, str]], lines: list[str]) -> None:
    found = version_lines(seen, "1.0")
    assert len(found) == len(lines)
    assert all(line.startswith(begin) for line, begin in zip(found, lines, strict=True))


@pytest.mark.parametrize(
    ("order", "told", "is_right"),
    [
        ("old", "ok       the secret key opens what is sealed in 1 endpoint(s)", True),
        ("new old", "1 of them still need an older key of BRIDGE_SECRET_KEY: run `bridge keys rotate`", True),
        ("new", "bridge keys forget", False),
        ("", "BRIDGE_SECRET_KEY is not set", True),
    ],
)
async def test_a_missing_a_wrong_and_an_old_secret_key_are_told_with_the_mend(
    order: str, told: str, is_right: bool
) -> None:
    keys = {"old": new_key(), "new": new_key()}
    backend, shown = fake_backend(), list[str]()
    sealer = Sealer(_settings(keys["old"]).secret_key)
    check = KeyCheck(backend, sealer)
    await check.register()
    sealed = SealedSecret(sealer.seal("whsec_x"))
    made = Endpoint("a", url_sealed=sealer.seal("https://a"), secrets_sealed=(sealed,), cvms=())
    await Endpoints(backend, key=check).create(made)
    given = _settings(",".join(keys[each] for each in order.split()))
    assert await _check_keys(backend, given, shown.append) is is_right
    assert told in "\n".join(shown)
    await backend.close()


def _settings(secret_key: str) -> Settings:
    given: dict[str, Any] = {"redis_url": "redis://h", "secret_key": secret_key}
    return Settings(**given)
