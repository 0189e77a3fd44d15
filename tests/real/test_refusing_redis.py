"""A Redis that is there and refuses: nothing ends for it, nothing is lost, and all goes on when it is mended."""

from __future__ import annotations

import json

from tests.bridges import Whole, whole
from tests.servers import RealServer

STATE = "{bridge}:state"


def full(server: RealServer) -> None:
    server.call("CONFIG", "SET", "maxmemory", "1")


def emptied(server: RealServer) -> None:
    server.call("CONFIG", "SET", "maxmemory", "0")


def overwritten(server: RealServer) -> None:
    server.call("SET", STATE, "somebody else's")


async def test_what_happened_while_redis_refused_is_told_once_it_is_mended(own_server: RealServer) -> None:
    async with whole(own_server.url, cvms=2) as bridge:
        await bridge.until_seen(2)
        full(own_server)
        await bridge.patch(bridge.ids[0], status="stopped")

        async def out_of_office() -> bool:
            return bool((await bridge.http.get(f"{bridge.url}/readyz")).json()["status"] == "degraded")

        await bridge.until(out_of_office, "nobody leads, and that is said")
        emptied(own_server)
        await tells_that_it_stopped(bridge)


async def test_states_that_somebody_overwrote_are_found_again_and_nothing_is_missing(own_server: RealServer) -> None:
    async with whole(own_server.url, cvms=2) as bridge:
        await bridge.until_seen(2)
        overwritten(own_server)
        await bridge.patch(bridge.ids[0], status="stopped")
        await tells_that_it_stopped(bridge)
        assert (await bridge.cvm(bridge.ids[0]))["status"] == "stopped"


async def tells_that_it_stopped(bridge: Whole) -> None:
    async def told() -> bool:
        return await told_of(bridge, bridge.ids[0]) == "stopped"

    await bridge.until(told, "the change")
    sequences = [event.sequence for event in await bridge.log()]
    assert sequences == list(range(1, len(sequences) + 1))


async def told_of(bridge: Whole, cvm_id: str) -> str | None:
    found = [json.loads(event.json)["data"] for event in await bridge.log() if event.cvm_id == cvm_id]
    return next((data["to"] for data in reversed(found) if "to" in data), None)
