"""A small FastAPI app with the signature that the documentation gives upstream's state route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse

from bridge.events import dumps

RAW = '{"id":"cvm-1","name":"web","status":"running","uptime":"1m 2s"}'


def reference() -> FastAPI:
    app = FastAPI()

    @app.get("/api/v1/cvms/{cvm_id}/state")
    async def handle_get_cvm_state(
        cvm_id: str,
        target: Annotated[str | None, Query()] = None,
        interval: Annotated[int, Query(ge=5, le=30)] = 5,
        timeout: Annotated[int, Query(ge=10, le=600)] = 300,
    ) -> Response:
        if target is None:
            return Response(RAW, media_type="application/json")
        return StreamingResponse(_stream(target, interval, timeout), media_type="text/event-stream")

    return app


async def _stream(target: str, interval: int, timeout: int) -> AsyncIterator[str]:
    """As documented: the state at each poll, until it has the target or the time is over."""
    elapsed = 0.0
    while elapsed < timeout:
        yield f"event: state\ndata: {RAW}\n\n"
        if target == "running":
            yield _event("complete", {"status": target, "elapsed": elapsed, "target": target})
            return
        pause = min(interval, timeout - elapsed)
        await asyncio.sleep(pause)
        elapsed += pause
    why = f"Timeout waiting for status '{target}'"
    yield _event("timeout", {"error": why, "elapsed": elapsed, "target": target})


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {dumps(data)}\n\n"
