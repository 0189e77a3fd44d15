from __future__ import annotations

import base64
from typing import Literal

import pytest
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from bridge.config import Token
from bridge.reference_sets import ReferenceSet
from bridge.web.http import access as access_module
from bridge.web.http.access import Access, Principal
from bridge.web.http.problems import ProblemError
from tests.fakes import HandClock

TOKENS = (
    Token("root", SecretStr("root-secret"), "admin"),
    Token("one", SecretStr("one-sécret"), "read", frozenset({"cvm-1"})),
)


class Clock(HandClock):
    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def connection(query: str = "", **headers: str) -> HTTPConnection:
    raw = [(name.replace("_", "-").encode(), value.encode("utf-8")) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "path": "/", "query_string": query.encode(), "headers": raw})


def access(clock: Clock | None = None) -> Access:
    return Access(TOKENS, open_access=False, clock=clock or Clock())


def status(query: str = "", **headers: str) -> int:
    with pytest.raises(ProblemError) as caught:
        access().reader(connection(query, **headers))
    return caught.value.status


def test_either_header_is_a_token() -> None:
    root = Principal("root", True, None)
    assert access().reader(connection(authorization="Bearer root-secret")) == root
    assert access().reader(connection(authorization="bearer  root-secret ")) == root
    assert access().reader(connection(x_api_key="root-secret")) == root


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic root-secret", "root-secret", "Bearer root-secre"])
def test_an_invalid_token_is_401(value: str) -> None:
    assert status(authorization=value) == 401


def test_a_secret_in_the_query_is_refused() -> None:
    assert status("access_token=root-secret") == 401


def test_a_stream_token_reads_what_its_maker_may_and_expires() -> None:
    clock = Clock()
    gate = access(clock)
    token, seconds = gate.stream_token(Principal("one", False, ReferenceSet.parsed(["cvm-1"])))
    query = f"access_token={token}"
    assert gate.reader(connection(query)) == Principal("one", False, ReferenceSet.parsed(["cvm-1"]), complete=False)
    gate.grant("one", ["cvm-2"], complete=True)
    assert gate.reader(connection(query)) == Principal("one", False, ReferenceSet.parsed(["cvm-1", "cvm-2"]))
    clock.now += seconds
    with pytest.raises(ProblemError) as caught:
        gate.reader(connection(query))
    assert (caught.value.status, caught.value.type.slug) == (401, "token-expired")


def test_an_admins_stream_token_only_reads() -> None:
    gate = access()
    token, _ = gate.stream_token(Principal("root", True, None))
    assert not gate.reader(connection(f"access_token={token}")).admin
    with pytest.raises(ProblemError) as caught:
        gate.holder(connection(f"access_token={token}"))
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "claims", [b"", b"null", b"[]", b'["root"]', b'["root",9e999]', b'["nobody",99999999999]', b"[" * 5000, b"\xff"]
)
def test_a_malformed_stream_token_is_401(claims: bytes) -> None:
    token = base64.urlsafe_b64encode(claims).decode().rstrip("=")
    assert status(f"access_token={token}.00") == 401
    assert status(f"access_token={token}") == 401


def named(name: str, secret: str, *cvms: str, scope: Literal["read", "admin"] = "read") -> Token:
    return Token(name, SecretStr(secret), scope, frozenset(cvms))


def test_a_change_revokes_what_tokens_that_have_gone_or_changed_have_opened_and_nothing_else() -> None:
    before = {
        "gone": named("gone", "s-gone"),
        "rotated": named("rotated", "s-old"),
        "narrowed": named("narrowed", "s-narrowed"),
        "demoted": named("demoted", "s-demoted", scope="admin"),
        "kept": named("kept", "s-kept", "web"),
    }
    gate = Access(before.values(), open_access=False, clock=Clock())
    gate.grant("kept", ["cvm-1"], complete=True)
    readers = {name: gate.reader(connection(x_api_key=each.secret.get_secret_value())) for name, each in before.items()}
    changed = gate.change(
        [
            before["kept"],
            named("rotated", "s-new"),
            named("narrowed", "s-narrowed", "cvm-1"),
            named("demoted", "s-demoted"),
            named("new", "s-gone"),
        ]
    )
    assert changed == {"gone", "rotated", "narrowed", "demoted", "new"}
    assert {name for name, each in readers.items() if each.credential.revoked} == {"gone", "rotated", "narrowed"}
    kept = gate.reader(connection(x_api_key="s-kept"))
    assert (kept, kept.credential) == (readers["kept"], readers["kept"].credential)
    assert kept.complete
    assert gate.reader(connection(x_api_key="s-narrowed")).cvms == ReferenceSet.parsed(["cvm-1"])
    assert gate.reader(connection(x_api_key="s-gone")).name == "new"
    assert not gate.reader(connection(x_api_key="s-demoted")).admin
    with pytest.raises(ProblemError):
        gate.reader(connection(x_api_key="s-old"))
    assert gate.change([*before.values()]) == changed
    assert gate.change([*before.values()]) == frozenset()


def test_a_token_that_has_gone_opens_nothing_and_is_still_no_key_of_anybody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_module, "MOST_FORMER", 3)
    gate = access()
    token, _ = gate.stream_token(Principal("one", False, None))
    gate.change([TOKENS[0]])
    for request in (connection(f"access_token={token}"), connection(x_api_key="one-sécret")):
        with pytest.raises(ProblemError) as caught:
            gate.reader(request)
        assert caught.value.status == 401
    assert gate.knows("one-sécret")
    assert not gate.knows("another")
    for number in range(4):
        gate.change([named("x", f"secret-{number}")])
    assert [gate.knows(each) for each in ("one-sécret", "secret-1", "secret-2", "secret-3")] == [
        False,
        True,
        True,
        True,
    ]
