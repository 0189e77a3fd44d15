from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from bridge.uvicorn_server import Server, serving

LISTENER: Any = None


class FakeServer(Server):
    """Serves nothing, until it is stopped or breaks."""

    def __init__(self, *, starts: bool = True) -> None:
        super().__init__(uvicorn.Config("none", log_config=None))
        self.ended = False
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.starts = starts

    async def serve(self, sockets: Any = None) -> None:
        try:
            if self.starts:
                self.started_up.set()
            await self.broken
        finally:
            self.ended = True

    def stop(self) -> None:
        super().stop()
        if not self.broken.done():
            self.broken.set_result(None)


async def test_leaving_the_context_ends_the_server() -> None:
    server = FakeServer()
    async with serving(server, LISTENER):
        assert not server.ended
    assert server.ended


@pytest.mark.parametrize("starts", [True, False])
async def test_an_exception_of_the_server_ends_the_body(starts: bool) -> None:
    server = FakeServer(starts=starts)
    asyncio.get_running_loop().call_soon(server.broken.set_exception, OSError("broken"))
    with pytest.raises(OSError, match="broken"):
        async with serving(server, LISTENER):
            await asyncio.Event().wait()
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()


async def test_a_server_that_returns_by_itself_ends_the_body() -> None:
    server = FakeServer()
    asyncio.get_running_loop().call_soon(server.broken.set_result, None)
    with pytest.raises(RuntimeError, match="ended by itself"):
        async with serving(server, LISTENER):
            await asyncio.Event().wait()


async def test_an_exception_of_the_body_comes_out_as_it_is() -> None:
    server = FakeServer()
    with pytest.raises(TimeoutError, match="the body's"):
        async with serving(server, LISTENER):
            raise TimeoutError("the body's")
    assert server.ended


async def test_a_cancelled_body_stays_cancelled_and_ends_the_server() -> None:
    server = FakeServer()

    async def body() -> None:
        async with serving(server, LISTENER):
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await server.started_up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.ended
