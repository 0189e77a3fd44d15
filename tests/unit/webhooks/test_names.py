"""Names and the resolver: which name may wait for which, and who is to blame for a missing answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from bridge.addresses import UrlRefusedError
from bridge.config_values import Allowlist
from bridge.host_lookup import MAX_LOOKUPS
from bridge.webhooks.names import ANSWERED_LATELY, KEPT_SECONDS, ROOM, Names
from bridge.webhooks.schedule import NotAttemptedError
from tests.virtual import VirtualClock, run_virtual


class Resolver:
    """`dead…` names are never answered, `again…` after a second by EAI_AGAIN, `none…` have no address."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.address = "1.1.1.1"

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("dead"):
            await asyncio.Event().wait()
        if host.startswith("again"):
            await asyncio.sleep(1)
            raise socket.gaierror(socket.EAI_AGAIN, "again")
        if host.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [self.address]


def names(resolver: Resolver) -> Names:
    return Names(resolver, Allowlist(), VirtualClock())


async def why(made: Names, host: str, seconds: float = 5.0) -> str:
    try:
        await made.addresses(host, 443, seconds)
    except NotAttemptedError as error:
        return error.why
    except UrlRefusedError as error:
        return error.word
    return "found"


@pytest.mark.parametrize("host", ["dead", "again"])
def test_a_name_without_an_answer_is_to_blame_only_while_others_have_one(host: str) -> None:
    async def scenario() -> None:
        made = names(Resolver())
        assert await why(made, host) == "resolver"
        assert await why(made, "good") == "found"
        assert await why(made, host) == "dns"
        await asyncio.sleep(ANSWERED_LATELY)
        assert await why(made, host) == "resolver"
        assert await why(made, "none") == "dns"  # an answer too: there is no such name
        assert await why(made, host) == "dns"
        made.close()

    run_virtual(scenario())


def test_any_number_of_dead_names_delay_neither_known_nor_new_ones() -> None:
    async def scenario() -> None:
        made, dead = names(Resolver()), [f"dead{number}" for number in range(ROOM["new"] + 50)]
        assert await why(made, "good") == "found"
        for attempt in range(4):
            waiting = [asyncio.create_task(why(made, host)) for host in dead]
            await asyncio.sleep(KEPT_SECONDS)
            assert await asyncio.wait_for(why(made, "good"), 0.1) == "found"
            if attempt:  # from now on they are known to have no answer
                assert await asyncio.wait_for(why(made, f"new{attempt}"), 0.1) == "found"
            assert set(await asyncio.gather(*waiting)) <= {"dns", "resolver"}
            await asyncio.sleep(60)
        made.close()

    run_virtual(scenario())


def test_a_name_that_waits_for_its_turn_is_not_to_blame() -> None:
    async def scenario() -> None:
        made = names(Resolver())
        assert await why(made, "good") == "found"
        waiting = [asyncio.create_task(why(made, f"dead{number}")) for number in range(ROOM["new"])]
        await asyncio.sleep(0)
        assert await why(made, "new") == "resolver"
        assert set(await asyncio.gather(*waiting)) == {"dns"}
        made.close()

    run_virtual(scenario())


def test_one_lookup_serves_all_who_want_a_name_and_is_kept_for_a_moment() -> None:
    async def scenario() -> None:
        resolver = Resolver()
        made = names(resolver)
        assert set(await asyncio.gather(*(why(made, "good") for _ in range(50)))) == {"found"}
        impatient = asyncio.create_task(why(made, "again", 60))
        await asyncio.sleep(0)
        impatient.cancel()  # the lookup goes on for the others
        assert await why(made, "again", 60) == "dns"
        assert resolver.asked == ["good", "again"]
        await asyncio.sleep(KEPT_SECONDS)
        resolver.address = "10.0.0.1"
        assert await why(made, "good") == "refused_address"
        resolver.address = "1.1.1.1"
        assert await why(made, "good") == "found", "what was refused is asked again at once"

    run_virtual(scenario())


def test_the_shares_fit_into_the_lookups_that_run_at_once() -> None:
    assert sum(ROOM.values()) <= MAX_LOOKUPS
