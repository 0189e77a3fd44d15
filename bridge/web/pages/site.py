"""The API documents, their page, and the dashboard. They need no token and contain no CVM's state.

All are made at the first request for one of them, in a thread, so that the event loop goes on serving subscribers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from starlette.responses import Response

from bridge import __version__
from bridge.events import dumps
from bridge.web.http.operations import OPERATION, Call, Operation, json_answer, text_answer
from bridge.web.pages.assembly import HEADERS, Page, assemble
from bridge.web.pages.markup import ADDRESS

_NAMES = ("words", "client", "stream", "rows", "filters", "table", "slots", "feed", "dashboard")
SCRIPTS = [f"{name}.js" for name in _NAMES]
"""Of the dashboard, in this order."""


@dataclass(frozen=True, slots=True)
class _Made:
    openapi: str
    asyncapi: str
    docs: Page
    dashboard: Page


class Site:
    """`operations` are all that the documents describe. The pages do not change while the process runs."""

    def __init__(self, namespace: str, operations: Sequence[Operation]) -> None:
        self._namespace = namespace
        self._operations = operations
        self._made: _Made | None = None

    @Operation("GET /openapi.json", OPERATION, {200: json_answer("OpenAPI 3.1", {"type": "object"})})
    async def get_open_api(self, call: Call) -> Response:
        """This document."""
        return Response((await self._get()).openapi, 200, HEADERS, "application/json")

    @Operation("GET /asyncapi.json", OPERATION, {200: json_answer("AsyncAPI 3.0", {"type": "object"})})
    async def get_async_api(self, call: Call) -> Response:
        """The streams, the Redis channels and the webhooks."""
        return Response((await self._get()).asyncapi, 200, HEADERS, "application/json")

    @Operation("GET /docs", OPERATION, {200: text_answer("A page", "text/html")})
    async def get_docs(self, call: Call) -> Response:
        """Both documents as a page."""
        request, page = call.request, (await self._get()).docs
        # Not `base_url`, which parses a `Host` header that may not be valid.
        scheme = request.headers.get("x-forwarded-proto", request.scope["scheme"])
        address = f"{'https' if scheme == 'https' else 'http'}://{request.headers.get('host', 'localhost')}"
        return Response(page.html.replace(ADDRESS, escape(address)), 200, page.headers, "text/html")

    @Operation("GET /", OPERATION, {200: text_answer("A page", "text/html")})
    async def get_dashboard(self, call: Call) -> Response:
        """The dashboard."""
        page = (await self._get()).dashboard
        return Response(page.html, 200, page.headers, "text/html")

    async def _get(self) -> _Made:
        if self._made is None:
            self._made = await asyncio.to_thread(_make, self._namespace, self._operations)
        return self._made


def _make(namespace: str, operations: Sequence[Operation]) -> _Made:
    # Imported here, because most front ends are never asked for a page.
    from bridge.web.documents.asyncapi import asyncapi  # noqa: PLC0415
    from bridge.web.documents.openapi import openapi  # noqa: PLC0415
    from bridge.web.pages.reference import reference  # noqa: PLC0415

    documents = openapi(namespace, operations), asyncapi(namespace, operations)
    texts = {"namespace": escape(namespace), "version": escape(__version__)}
    dashboard = assemble("dashboard.html", ("look.css", "table.css", "dashboard.css"), SCRIPTS, **texts)
    docs = assemble("docs.html", ("look.css", "docs.css"), ("docs.js",), **texts, **reference(*documents))
    return _Made(dumps(documents[0]), dumps(documents[1]), docs, dashboard)
