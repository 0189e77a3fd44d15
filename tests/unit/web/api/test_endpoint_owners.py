"""What front ends store of an endpoint's owner, as their tokens and the CVMs of these change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import pytest
from pydantic import SecretStr

from bridge.config import Token
from bridge.reference_sets import ReferenceSet
from bridge.store import endpoints as stored
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import StoreUnavailableError, TooManyEndpointsError
from bridge.web.api.endpoint_owners import EndpointOwners, may_have, owned
from bridge.web.http.access import ANYBODY, Access, Principal
from tests.fakes import fake_backend
from tests.lanes import endpoint
from tests.virtual import VirtualClock, run_virtual

A, B, C = (f"0000000{each}-0000-4000-8000-000000000000" for each in "abc")


def token(name: str, *cvms: str) -> Token:
    return Token(name, SecretStr(f"{name}-secret"), "admin", frozenset(cvms))


class Web:
    """The part of a front end that writes owners."""

    def __init__(self, backend: Backend, *tokens: Token) -> None:
        clock = VirtualClock()
        self.access = Access(tokens, open_access=False, clock=clock)
        self.endpoints = Endpoints(backend)
        self.owners = EndpointOwners(self.access, self.endpoints, clock)

    async def make(self, id: str, owner: str, reach: Iterable[str] | None) -> None:
        principal = Principal(owner, True, None if reach is None else ReferenceSet.parsed(reach))
        self.owners.made(await self.endpoints.create(owned(endpoint(id), principal)))

    async def reach(self, id: str = "e") -> tuple[str, ...] | None:
        found = await self.endpoints.get(id)
        assert found is not None
        reach = found[0].reach
        return reach and tuple(each for each in reach if each != "web")  # which is no CVM


@pytest.mark.parametrize("now", [[token("team", B, C)], [token("team", C, B), token("root")]])
async def test_a_front_end_with_other_tokens_clips_at_its_start(now: list[Token]) -> None:
    backend = fake_backend()
    await Web(backend, token("team", A)).make("e", "team", [A])
    web = Web(backend, *now)
    await web.owners.write()
    assert await web.reach() == (B, C)


async def test_endpoints_of_a_limited_token_that_is_gone_get_nothing_and_others_stay() -> None:
    backend = fake_backend()
    before = Web(backend, token("team", A), token("root"))
    await before.make("team", "team", [A])
    await before.make("root", "root", None)
    await Endpoints(backend).create(endpoint("old"))
    after = Web(backend, token("another"))
    await after.owners.write()
    assert [await after.reach(each) for each in ("team", "root", "old")] == [(), None, None]
    again = Web(backend, token("team", A), token("root", B))
    await again.owners.write()
    assert [await again.reach(each) for each in ("team", "root", "old")] == [(A,), (B,), None]


async def test_names_that_move_are_followed_and_those_nobody_can_look_up_change_nothing() -> None:
    backend = fake_backend()
    await Web(backend).make("e", "team", [A, C])
    web = Web(backend, token("team", "web", C))
    await web.owners.write()  # the name is still being looked up
    assert await web.reach() == (A, C)
    for found, complete, expected in (([B], True, (B, C)), ([], False, (B, C)), ([], True, (C,)), ([A], True, (A, C))):
        web.access.grant("team", found, complete=complete)
        await web.owners.write()
        assert await web.reach() == expected


async def test_an_older_front_end_leaves_alone_what_a_newer_one_wrote() -> None:
    backend = fake_backend()
    old, new = Web(backend, token("team", A)), Web(backend, token("team", B), token("more", C))
    await old.owners.write()
    await new.owners.write()
    await new.make("e", "team", [B])
    await new.make("m", "more", [C])
    await old.make("o", "root", None)  # has it look again
    await old.owners.write()
    assert await new.reach("m") == (C,)


async def test_an_endpoint_that_is_made_while_names_move_is_looked_at_again() -> None:
    web = Web(fake_backend(), token("team", "web"))
    web.access.grant("team", [A], complete=True)
    await web.owners.write()
    web.access.grant("team", [B], complete=True)
    await web.owners.write()
    await web.make("e", "team", [A])  # asked for before
    await web.owners.write()
    assert await web.reach() == (B,)


async def test_tokens_that_change_clip_their_endpoints_also_one_that_is_made_meanwhile() -> None:
    web = Web(fake_backend(), token("team", A), token("root"), token("gone", A))
    for id, owner, reach in (("t", "team", [A]), ("r", "root", None), ("g", "gone", [A])):
        await web.make(id, owner, reach)
    await web.owners.write()
    web.access.change([token("team", A, B), token("root", C)])
    await web.owners.write()
    assert [await web.reach(each) for each in ("t", "r", "g")] == [(A, B), (C,), ()]
    await web.make("late", "gone", [A])  # asked for before
    await web.owners.write()
    assert await web.reach("late") == ()


async def test_a_limited_token_has_a_share_of_the_endpoints_and_others_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "MOST_OF_ONE", 2)
    web = Web(fake_backend())
    for made in ("a", "b"):
        await web.make(made, "team", [A])
    with pytest.raises(TooManyEndpointsError):
        await web.make("c", "team", [A])
    for made in ("r1", "r2", "r3"):
        await web.make(made, "root", None)
    await web.make("t1", "another", [A])
    await web.endpoints.remove("a")
    await web.make("a", "another", [A])  # no longer the first one's
    await web.make("c", "team", [A])
    with pytest.raises(TooManyEndpointsError):
        await web.make("d", "team", [A])


async def test_an_endpoint_that_another_token_made_meanwhile_keeps_what_that_one_may_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    web = Web(fake_backend(), token("team", B, C), token("another", A))
    await web.make("e", "team", [A])
    change = Endpoints.change

    async def late(endpoints: Endpoints, id: str, edit: Callable[[Endpoint], Endpoint]) -> Endpoint:
        await web.endpoints.remove(id)
        await web.make(id, "another", [A])
        return await change(endpoints, id, edit)

    monkeypatch.setattr(Endpoints, "change", late)
    await web.owners.write()
    assert await web.reach() == (A,)


async def test_what_redis_did_not_take_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(fake_backend(), token("team", "web"))
    await web.make("e", "team", [A])
    change = Endpoints.change
    for found in (B, C):
        web.access.grant("team", [found], complete=True)
        with monkeypatch.context() as broken:
            broken.setattr(Endpoints, "change", _away)
            with pytest.raises(StoreUnavailableError):
                await web.owners.write()
        assert Endpoints.change is change
        await web.owners.write()
        assert await web.reach() == (found,)


async def _away(*_: object) -> Endpoint:
    raise StoreUnavailableError


def test_for_a_limited_token_there_are_only_endpoints_of_its_own() -> None:
    team, root = Principal("team", True, ReferenceSet.parsed([A])), Principal("root", True, None)
    mine, others, old = (endpoint(owner=owner) for owner in ("team", "root", ""))
    broken = Endpoint("e", "", owner="team")
    assert [may_have(team, each) for each in (mine, others, old, broken)] == [True, False, False, False]
    assert all(may_have(root, each) for each in (mine, others, old, broken))
    assert (owned(old, ANYBODY).owner, owned(old, ANYBODY).reach) == ("", None)


def test_redis_that_is_away_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    async def write() -> None:
        asked.append("again")
        raise StoreUnavailableError

    async def scenario() -> None:
        web = Web(fake_backend(), token("team", A))
        web.owners.write = write  # type: ignore[method-assign]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(web.owners.run(), 60)

    with caplog.at_level("INFO"):
        run_virtual(scenario())
    assert len(asked) > 2
    assert caplog.text.count("wait for Redis") == 1
