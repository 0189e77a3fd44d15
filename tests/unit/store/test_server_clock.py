"""A process tells Redis's time, whatever its own clock shows."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bridge.store.server_clock import ServerClock
from tests.fakes import fake_backend, redis_time
from tests.virtual import VirtualClock, run_virtual


class Own:
    """A wall clock that is wrong, and a monotonic one that began at some time."""

    def __init__(self) -> None:
        self.wall, self.ticks = 5000.0, 100.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def test_its_own_time_counts_until_the_servers_is_known() -> None:
    own = Own()
    clock = ServerClock(own)
    assert (clock.time(), clock.skew) == (5000.0, 0.0)
    clock.observe(1400.0, 100.0, 100.0)
    own.ticks += 5
    own.wall += 5
    assert (clock.time(), clock.skew) == (1405.0, 3600.0)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 3), st.floats(0, 3)), min_size=1))
def test_answers_on_a_slow_way_move_it_by_no_more_than_they_prove(answers: list[tuple[float, float, float]]) -> None:
    """The time told is late by the duration of the fastest answer so far at most, and never early."""
    own = Own()
    clock, server, fastest = ServerClock(own), 1_000_000.0, 99.0
    for pause, there, back in answers:
        own.ticks += pause
        sent_at = own.ticks
        own.ticks += there + back
        clock.observe(server + sent_at + there, sent_at, own.ticks)
        fastest = min(fastest, there + back)
        assert -fastest - 0.0011 <= clock.time() - (server + own.ticks) <= 1e-6


def test_a_clock_that_is_set_on_either_side_is_noticed_within_seconds() -> None:
    async def scenario() -> None:
        own, server, backend = VirtualClock(), VirtualClock(), fake_backend()
        clock = ServerClock(own)
        with redis_time(server):
            following = asyncio.create_task(clock.follow(backend))
            for jump in (0.0, 3600.0, -7200.0):
                server.jump(jump)
                await asyncio.sleep(11)
                assert abs(clock.time() - server.time()) < 0.01
            own.jump(500.0)
            assert abs(clock.time() - server.time()) < 0.01
            following.cancel()
            await asyncio.wait([following])
            await backend.close()

    run_virtual(scenario())
