"""The server that sse-starlette's documentation leads to; run as a program by the benchmark, with the port."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue[str]] = set()


async def events() -> AsyncIterator[dict[str, str]]:
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)
    try:
        while True:
            yield {"event": "transition", "data": await queue.get()}
    finally:
        queues.discard(queue)


async def subscribe(_: Request) -> Response:
    response: Response = EventSourceResponse(events(), ping=15)
    return response


async def publish(request: Request) -> Response:
    text = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(text)
    return Response()


async def ready(_: Request) -> Response:
    return Response()


app = Starlette(routes=[Route("/sub", subscribe), Route("/pub", publish, methods=["POST"]), Route("/ready", ready)])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="error", backlog=4096)
