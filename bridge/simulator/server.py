"""The simulator on a socket: in process for `bridge up` and tests, or as the body of `bridge simulate`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.clock import SystemClock
from bridge.simulator.app import create_app
from bridge.simulator.simulator import Settings, Simulator
from bridge.simulator.streams import EXTENSION
from bridge.simulator.world import World
from bridge.uvicorn_server import Server, http_url, listening_socket, serving

#: Seconds at the end until connections that still have something to write are dropped; their clients do not read.
LAST_WORDS = 0.3


@dataclass(frozen=True)
class Running:
    """A simulator that listens."""

    simulator: Simulator
    host: str
    port: int

    @property
    def url(self) -> str:
        return http_url(self.host, self.port)

    @property
    def api_prefix(self) -> str:
        """The value for `PHALA_CLOUD_API_PREFIX`."""
        return f"{self.url}/api/v1"

    @property
    def control(self) -> str:
        return f"{self.url}/control"


def _cut(transport: asyncio.Transport, how: Literal["reset", "close"]) -> None:
    """`reset`: the client gets a TCP reset; `close`: the written bytes, then the end, in the middle of the body."""
    if how == "close":
        transport.close()
        return
    plug = transport.get_extra_info("socket")
    if plug is not None:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also lets an answer cut its own connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {EXTENSION: partial(_cut, self.transport)}


class _Server(Server):
    """Ends the simulator's open answers at its own end, which no client can delay."""

    def __init__(self, config: uvicorn.Config, simulator: Simulator) -> None:
        super().__init__(config)
        self._simulator = simulator

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._simulator.close()
        drop = asyncio.get_running_loop().call_later(LAST_WORDS, self._drop)
        try:
            await super().shutdown(sockets)
        finally:
            drop.cancel()

    def _drop(self) -> None:
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


@contextlib.asynccontextmanager
async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    world: World | None = None,
    seed: int = 0,
    keys: dict[str, str] | None = None,
    time_scale: float = 1.0,
    instant: bool = False,
    operations: bool = True,
) -> AsyncIterator[Running]:
    """Serves while the context is open; port 0 takes a free one. Without `world`, twelve CVMs of `seed`
    live. `keys`: API key → user; None: every key belongs to the demo user. `time_scale`: real seconds per simulated
    second. `instant`: streams send changes when they happen. `operations`: whether batch, lists and details tell of
    operations. Raises OSError if the address is not available. At the end, open streams end within half a second.
    """
    clock = SystemClock()
    world = world or World(seed, now=clock.time())
    settings = Settings(frozen=world.frozen, instant=instant, time_scale=time_scale, keys=keys, operations=operations)
    simulator = Simulator(world, settings, clock)
    listener = listening_socket(host, port, backlog=2048)
    app = create_app(simulator)
    config = uvicorn.Config(app, http=_Protocol, ws="none", lifespan="on", log_config=None, access_log=False)
    async with serving(_Server(config, simulator), listener):
        yield Running(simulator, host, listener.getsockname()[1])


async def run_simulator(
    host: str, port: int, world: World, *, time_scale: float = 1.0, announce: Callable[[Running], None]
) -> None:
    """`bridge simulate`: serves until it is cancelled, then ends cleanly. `announce` is called once it listens.

    Raises OSError if the address is not available.
    """
    async with serve(host, port, world=world, time_scale=time_scale) as running:
        announce(running)
        await asyncio.Event().wait()
