"""A dispatcher whose receivers' names are not all answered, with lookups in real threads."""

from __future__ import annotations

import asyncio
import threading

from bridge.host_lookup import HostLookup
from tests.real.test_dispatcher import sending


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
