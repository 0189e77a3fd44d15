"""Host names to addresses: what a slow name server may hold up, and what not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bridge.host_lookup import MAX_LOOKUPS, HostLookup, ask_system


class SlowNames:
    """Each lookup waits until the test lets all of them go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        assert self.go.wait(20)
        return ["192.0.2.1"]


async def test_addresses_come_in_the_systems_order_each_once() -> None:
    assert await HostLookup()("127.0.0.1", 80) == ["127.0.0.1"]
    assert set(await HostLookup()("localhost", 80)) <= {"127.0.0.1", "::1"}


async def test_a_name_that_does_not_resolve_is_an_os_error() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(OSError, match="no such name"):
        await HostLookup(unknown)("x.test", 80)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", "\ud800.test"])
def test_what_is_no_host_name_is_an_os_error_too(host: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
        ask_system(host, 80)


async def test_a_slow_name_holds_up_no_other_and_a_cancelled_one_keeps_its_place() -> None:
    slow = SlowNames()
    lookup = HostLookup(lambda host, port: slow(host, port) if host == "slow.test" else ["192.0.2.2"])
    waiting = [asyncio.create_task(lookup("slow.test", 80)) for _ in range(MAX_LOOKUPS - 1)]
    await asyncio.sleep(0)
    assert await lookup("quick.test", 80) == ["192.0.2.2"]
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*waiting, return_exceptions=True)
    )
    last, beyond = (asyncio.create_task(lookup("slow.test", 80)) for _ in range(2))
    assert await lookup_is_stuck(beyond)
    slow.go.set()
    assert [await last, await beyond] == [["192.0.2.1"]] * 2
    assert slow.asked == MAX_LOOKUPS + 1


async def lookup_is_stuck(task: asyncio.Task[list[str]]) -> bool:
    """No turn of the loop brings it on: all places are taken."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()


async def test_an_answer_that_comes_after_the_loop_has_ended_harms_nothing() -> None:
    slow = SlowNames()

    async def ask() -> None:
        task = asyncio.create_task(HostLookup(slow)("slow.test", 80))
        await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(asyncio.run, ask())
    slow.go.set()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            await asyncio.to_thread(thread.join)
