"""PhalaClient against scripted answers, without a socket."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from bridge.upstream.client import PhalaClient, StreamEvent

KEY = "phak_very-secret"
NOW = 1_795_536_000.0
STATE = {"id": "u-1", "name": "web", "status": "running"}

Handler = Callable[[httpx.Request], httpx.Response]


class StoppedClock:
    def time(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 7.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the client never sleeps")


def client_for(handler: Handler | httpx.Response) -> PhalaClient:
    answer = handler if callable(handler) else lambda request: handler
    return PhalaClient("http://up/api/v1/", KEY, clock=StoppedClock(), transport=httpx.MockTransport(answer))


async def received(response: httpx.Response) -> list[StreamEvent]:
    async with client_for(response).stream("u-1", target="deleted", interval=5, timeout=120) as events:
        return [event async for event in events]


def sse(body: bytes, content_type: str = "text/event-stream") -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": content_type}, content=body)


def listing(held: dict[int, list[object]], asked: list[int], **more: object) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["page"]))
        return httpx.Response(200, json={"items": held.get(asked[-1], []), **more})

    return answer
