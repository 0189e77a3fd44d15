from __future__ import annotations

import asyncio
import gc
import json

import pytest
from starlette.requests import Request
from starlette.types import Message

from bridge.web.api.webhook_models import EndpointRegistration
from bridge.web.http.problems import ProblemError
from bridge.web.http.request_bodies import read_model

HEADERS = json.dumps(
    {"url": "https://example.com/", "headers": {f"X-{number}": "a" for number in range(4000)}}
).encode()


async def _refused(body: bytes) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}, receive)
    with pytest.raises(ProblemError):
        await read_model(request, EndpointRegistration)


@pytest.mark.parametrize("body", [HEADERS, b"[" * 60_000, b"[1]", b'{"url": 1}', b'{"x": 1}', b'{"url": "\\ud800"}'])
def test_a_refused_body_is_let_go_without_the_garbage_collector(body: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        asyncio.run(_refused(body))
        assert [each for each in gc.get_objects() if isinstance(each, Request)] == []
    finally:
        gc.enable()
