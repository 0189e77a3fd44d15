"""A dispatcher whose receivers' names are not all answered."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

from bridge.host_lookup import HostLookup
from bridge.store.connection import Backend
from tests.lanes import bench, endpoint, settle
from tests.real.test_dispatcher import sending
from tests.servers import PATIENCE


async def test_eighty_names_without_an_answer_delay_no_other_endpoint(redis_url: str) -> None:
    over = threading.Event()

    def ask(host: str, port: int) -> list[str]:
        if host.startswith("dead"):
            over.wait()
            raise OSError("no answer")
        return ["127.0.0.1"]

    try:
        async with sending(redis_url, timeout=0.5, resolve=HostLookup(ask)) as stage:
            receiver = stage.receiver
            receiver.url = f"http://good.test:{receiver.port}"
            await stage.register("good")
            for number in range(80):
                receiver.url = f"http://dead{number}.test:{receiver.port}"
                await stage.register(f"dead{number}")
            for round in range(4):
                await stage.append(*(f"cvm-{number}" for number in range(10)))
                await receiver.until(lambda: len(receiver.accepted) == 10 * (round + 1), "all of the healthy one")  # noqa: B023
                await asyncio.sleep(0.3)
            assert {hit.path for hit in receiver.hits} == {"/good"}
    finally:
        over.set()


async def test_an_endpoint_shows_that_no_name_is_answered(redis_url: str) -> None:
    async def unanswered(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "again")

    async with sending(redis_url, resolve=unanswered) as stage:
        await stage.endpoints.create(endpoint("e", url="sealed:https://dead.test/"))
        await stage.append("a")
        async with asyncio.timeout(PATIENCE):
            while not (shown := (await stage.endpoints.page())[0][1]).postponed_since:  # noqa: ASYNC110 - in Redis
                await asyncio.sleep(0.05)
        assert shown.postponed_reason == "resolver: no name server answers"
        assert (shown.pending, shown.failing_since) == (1, None)


async def test_a_postponement_is_shown_until_the_endpoint_is_enabled_again(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint("e"))
    await made.writer.append("a")
    await made.fill()
    (claim,) = (await made.claim()).claims
    await settle(made, claim, "postponed", 1)
    assert (await made.endpoints.page())[0][1].postponed_reason
    await made.endpoints.disable("e")
    assert (await made.endpoints.page())[0][1].postponed_reason
    await made.endpoints.enable("e")
    shown = (await made.endpoints.page())[0][1]
    assert (shown.postponed_since, shown.postponed_reason) == (None, None)
