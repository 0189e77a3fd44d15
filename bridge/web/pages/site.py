"""The routes that show the bridge: its documents, their page, and the dashboard. Open to everybody; they hold no state.

All are made at the first request for one of them, beside the event loop: it has subscribers to serve.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from html import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge import __version__
from bridge.events import dumps
from bridge.web.pages.assembly import HEADERS, Page, assemble
from bridge.web.pages.markup import ADDRESS

SCRIPTS = (
    "words.js",
    "client.js",
    "stream.js",
    "rows.js",
    "filters.js",
    "table.js",
    "slots.js",
    "feed.js",
    "dashboard.js",
)


@dataclass(frozen=True, slots=True)
class _Made:
    openapi: str
    asyncapi: str
    docs: Page
    dashboard: Page


class Site:
    """What it shows does not change while the process runs."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._made: _Made | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/", self._dashboard, methods=["GET"]),
            Route("/docs", self._docs, methods=["GET"]),
            Route("/openapi.json", self._openapi, methods=["GET"]),
            Route("/asyncapi.json", self._asyncapi, methods=["GET"]),
        ]

    async def _dashboard(self, request: Request) -> Response:
        page = (await self._get()).dashboard
        return Response(page.html, 200, page.headers, "text/html")

    async def _docs(self, request: Request) -> Response:
        page = (await self._get()).docs
        # Not `base_url`, which takes a `Host` apart that may be no host.
        said = request.headers.get("x-forwarded-proto", request.scope["scheme"])
        address = f"{'https' if said == 'https' else 'http'}://{request.headers.get('host', 'localhost')}"
        return Response(page.html.replace(ADDRESS, escape(address)), 200, page.headers, "text/html")

    async def _openapi(self, request: Request) -> Response:
        return Response((await self._get()).openapi, 200, HEADERS, "application/json")

    async def _asyncapi(self, request: Request) -> Response:
        return Response((await self._get()).asyncapi, 200, HEADERS, "application/json")

    async def _get(self) -> _Made:
        if self._made is None:
            self._made = await asyncio.to_thread(_make, self._namespace)
        return self._made


def _make(namespace: str) -> _Made:
    # The models behind the documents take a while to make: a process that nobody asks for them does without.
    from bridge.web.documents.asyncapi import asyncapi  # noqa: PLC0415
    from bridge.web.documents.openapi import openapi  # noqa: PLC0415
    from bridge.web.pages.reference import reference  # noqa: PLC0415

    documents = openapi(namespace), asyncapi(namespace)
    texts = {"namespace": escape(namespace), "version": escape(__version__)}
    dashboard = assemble("dashboard.html", ("look.css", "table.css", "dashboard.css"), SCRIPTS, **texts)
    docs = assemble("docs.html", ("look.css", "docs.css"), ("docs.js",), **texts, **reference(*documents))
    return _Made(dumps(documents[0]), dumps(documents[1]), docs, dashboard)
