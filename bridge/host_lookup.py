"""Host names to addresses, without letting slow name servers hold up anything else.

The loop's own `getaddrinfo` runs in a pool of a few threads: a handful of names whose servers do not answer would
keep every other name waiting, and the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

MAX_LOOKUPS = 256
"""Threads at the same time, a few kB each while they wait; a resolver that is slower than that is the bottleneck."""

Ask = Callable[[str, int], list[str]]


def ask_system(host: str, port: int) -> list[str]:
    """Blocks. Raises OSError if the name has no address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("not a host name") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class HostLookup:
    """`await lookup(host, port)`: the addresses, as `bridge.addresses.Resolve` has it.

    A cancelled lookup goes on in its thread and counts towards MAX_LOOKUPS until it ends. The threads are daemons, so
    they do not keep the process from ending.
    """

    def __init__(self, ask: Ask = ask_system) -> None:
        self._ask = ask
        self._free = asyncio.Semaphore(MAX_LOOKUPS)

    async def __call__(self, host: str, port: int) -> list[str]:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str] | OSError) -> None:
            self._free.release()
            if answer.cancelled():
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def work() -> None:
            try:
                found: list[str] | OSError = self._ask(host, port)
            except OSError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=work, name="lookup", daemon=True).start()
        return await answer
