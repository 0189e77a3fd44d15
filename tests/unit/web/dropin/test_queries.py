"""The drop-in's query beside a small FastAPI app with the reference's signature: same status, same body."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.types import ASGIApp

from bridge.config import Settings
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from bridge.web.app import FrontEnd
from tests.fakes import fake_backend
from tests.unit.web.streaming.reference import RAW, reference
from tests.virtual import VirtualClock, run_virtual

HUGE = "9" * 5000

QUERIES = [
    # No parameters, and unknown ones
    "",
    "&",
    "=",
    "other=1",
    "Interval=1",
    "TIMEOUT=1",
    "interval[]=7",
    # Bounds
    "interval=5",
    "interval=30",
    "interval=4",
    "interval=31",
    "interval=0",
    "interval=-5",
    "timeout=10",
    "timeout=600",
    "timeout=9",
    "timeout=601",
    "interval=5&timeout=600",
    "interval=4&timeout=601",
    "timeout=601&interval=4",
    # Values that Pydantic reads as integers
    "interval=%2B7",
    "interval=+7",
    "interval=%207%20",
    "interval=007",
    "interval=1_0",
    "interval=_10",
    "interval=5.0",
    "interval=5.00",
    "interval=5.5",
    "interval=5.",
    "interval=1e1",
    "interval=0x10",
    "interval=%D9%A7",
    "interval=true",
    "interval=null",
    "interval=None",
    "interval=abc",
    f"interval={HUGE}",
    f"timeout=-{HUGE}",
    "timeout=9223372036854775808",
    "timeout=Infinity",
    "timeout=NaN",
    # Empty and repeated
    "interval=",
    "interval",
    "timeout=&interval=",
    "interval=7&interval=4",
    "interval=4&interval=7",
    "interval=7&interval=",
    "timeout=x&timeout=20",
    # Separators and escapes
    "interval=7;timeout=9",
    "interval=%37",
    "%69nterval=4",
    "interval=%",
    "interval=%zz",
    "interval=%00",
    "interval=7%0A",
    "interval=%FF",
    "interval=%ED%A0%80",
    "interval=\xff",
    "interval=\xc3\xa9",
    "interval=%E2%80%A8",
    "timeout=%F0%9F%92%A9",
    "timeout=%22%5C",
    # Streams
    "target=running",
    "target=running&interval=4",
    "target=running&timeout=abc",
    "target=stopped&target=running",
    "target=running&target=",
    "target=",
    "target",
    "target=Running&timeout=10",
    "target=%00%0A%0D&timeout=10",
    "target=%FF%FE&timeout=11&interval=6",
    "target=%E2%80%A8%C2%85&timeout=10",
    "target=%22%7D&timeout=12",
    "target=\xe9&timeout=10",
    "target=a+b%20c&timeout=30&interval=30",
    "target=null&timeout=600&interval=30",
]


async def get(app: ASGIApp, query: str) -> tuple[int, str | None, bytes]:
    """Status, media type and body, with the query as a server passes it."""
    path = "/api/v1/cvms/cvm-1/state"
    scope: MutableMapping[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": [],
        "client": None,
        "server": None,
    }
    came = [{"type": "http.request", "body": b"", "more_body": False}]
    answer: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if not came:
            await asyncio.Event().wait()
        return came.pop()

    async def send(message: MutableMapping[str, Any]) -> None:
        answer.append(message)

    await app(scope, receive, send)
    headers = dict(answer[0]["headers"])
    kind = headers.get(b"content-type", b"").decode().partition(";")[0] or None
    return answer[0]["status"], kind, b"".join(message.get("body", b"") for message in answer[1:])


async def dropin() -> FrontEnd:
    """A front end with one CVM and a leader."""
    backend, clock = fake_backend(), VirtualClock()
    front = FrontEnd(Settings(), backend, clock, open_access=True)
    front.hub.led_until = float("inf")
    await Watches(backend).want("cvm-1")
    seen = Snapshot("cvm-1", RAW, "running", "web", None, "2026-11-24T16:00:00.000Z")
    await backend.client.hset(backend.keys.state, "cvm-1", seen.to_json())
    return front


@pytest.mark.parametrize("query", QUERIES)
def test_status_and_body_are_the_same_as_fastapis(query: str) -> None:
    async def scenario() -> tuple[Any, Any]:
        front = await dropin()
        timer = asyncio.create_task(front.dropin.run())
        found = await get(front.app, query), await get(reference(), query)
        timer.cancel()
        await asyncio.wait([timer])
        return found

    ours, fastapis = run_virtual(scenario())
    assert ours == fastapis


def test_there_are_sixty_queries_and_more() -> None:
    assert len(set(QUERIES)) >= 60
