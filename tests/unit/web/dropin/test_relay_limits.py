from __future__ import annotations

import asyncio

import pytest

from bridge.web.dropin.relay_limits import TURN, NoPlaceError, Shares, Uploads
from tests.virtual import run_virtual


async def stay(shares: Shares, key: str, seconds: float) -> float:
    """Returns when the place was given."""
    async with shares.place(key):
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        return begun


def test_a_key_waits_for_its_own_places_and_no_other_key_does() -> None:
    async def scenario() -> None:
        shares, start = Shares(2), asyncio.get_running_loop().time()
        work = [stay(shares, "one", 1), stay(shares, "one", 2), stay(shares, "one", 1), stay(shares, "two", 1)]
        begun = await asyncio.gather(*work)
        assert [at - start for at in begun] == [0, 0, 1, 0]
        assert len(shares) == 0

    run_virtual(scenario())


def test_a_place_that_does_not_come_free_in_time_is_refused_and_nothing_is_left_of_it() -> None:
    async def scenario() -> None:
        shares = Shares(1)
        first = asyncio.create_task(stay(shares, "one", TURN + 1))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(stay(shares, "one", 1)) for _ in range(2)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        with pytest.raises(NoPlaceError):
            await waiting[1]
        await first
        assert len(shares) == 0
        await stay(shares, "one", 1)

    run_virtual(scenario())


class Body:
    def __init__(self) -> None:
        self.ended = False

    def give_way(self) -> None:
        self.ended = True


def test_the_oldest_of_too_many_bodies_gives_way() -> None:
    uploads, bodies = Uploads(2), [Body() for _ in range(4)]
    uploads.enter(bodies[0])
    uploads.enter(bodies[1])
    uploads.leave(bodies[0])
    uploads.enter(bodies[2])
    assert not any(body.ended for body in bodies)
    uploads.enter(bodies[3])
    assert [body.ended for body in bodies] == [False, True, False, False]
    uploads.leave(bodies[1])
    assert len(uploads) == 2
