"""The API documents, their page, and the dashboard. They need no token and contain no CVM's state.

All are made at the first request for one of them, in a thread, so that the event loop goes on serving subscribers. A
page has its styles and scripts inline, allowed by their hashes and nothing else (CSP level 2); a worker must be a file.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from starlette.responses import Response

from bridge import __version__
from bridge.events import dumps
from bridge.web.http.operations import OPERATION, Call, Operation, json_answer, text_answer
from bridge.web.pages.markup import ADDRESS

_HERE = files(__package__)

POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Beside the hashes and the trusted types: no text can become markup or script."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_CONNECTION = ("client.js", "stream.js", "shared_stream.js")
_CVMS = ("rows", "filters", "table", "slots", "feed", "timeline_lanes", "timeline", "details")
_WEBHOOKS = ("endpoints", "deliveries", "endpoint", "webhooks")
_REST = ("words", "tab_stream", "address", *_CVMS, *_WEBHOOKS, "notices", "dashboard")
SCRIPTS = [*_CONNECTION, *(f"{name}.js" for name in _REST)]
"""Of the dashboard, in this order. Without shared workers it needs the connection itself."""

WORKER_SCRIPTS = [*_CONNECTION, "stream_worker.js"]

NO_TYPES = "trusted-types 'none'"
ONE_WORKER = "worker-src 'self'; trusted-types worker"
"""Of the dashboard: `tab_stream.js` makes the only policy, and it takes the worker's address alone."""

Page = tuple[str, Mapping[str, str], str]
"""A finished page or document, the headers that it needs, and its media type."""


class Site:
    """`operations` are all that the documents describe. The pages do not change while the process runs."""

    def __init__(self, namespace: str, operations: Sequence[Operation]) -> None:
        self._namespace = namespace
        self._operations = operations
        self._made: dict[str, Page] = {}

    @Operation("GET /openapi.json", OPERATION, {200: json_answer("OpenAPI 3.1", {"type": "object"})})
    async def get_open_api(self, call: Call) -> Response:
        """This document."""
        return await self._get("openapi")

    @Operation("GET /asyncapi.json", OPERATION, {200: json_answer("AsyncAPI 3.0", {"type": "object"})})
    async def get_async_api(self, call: Call) -> Response:
        """The streams, the Redis channels and the webhooks."""
        return await self._get("asyncapi")

    @Operation("GET /docs", OPERATION, {200: text_answer("A page", "text/html")})
    async def get_docs(self, call: Call) -> Response:
        """Both documents as a page."""
        request = call.request
        # Not `base_url`, which parses a `Host` header that may not be valid.
        scheme = request.headers.get("x-forwarded-proto", request.scope["scheme"])
        address = f"{'https' if scheme == 'https' else 'http'}://{request.headers.get('host', 'localhost')}"
        return await self._get("docs", escape(address))

    @Operation("GET /", OPERATION, {200: text_answer("A page", "text/html")})
    async def get_dashboard(self, call: Call) -> Response:
        """The dashboard."""
        return await self._get("dashboard")

    @Operation("GET /stream-worker.js", OPERATION, {200: text_answer("A script", "text/javascript")})
    async def get_stream_worker(self, call: Call) -> Response:
        """The dashboard's shared worker: one connection for all tabs of a browser."""
        return await self._get("worker")

    async def _get(self, name: str, address: str = ADDRESS) -> Response:
        if not self._made:
            self._made = await asyncio.to_thread(_make, self._namespace, self._operations)
        text, headers, media_type = self._made[name]
        return Response(text.replace(ADDRESS, address), 200, headers, media_type)


def _make(namespace: str, operations: Sequence[Operation]) -> dict[str, Page]:
    # Imported here, because most front ends are never asked for a page.
    from bridge.web.documents.asyncapi import asyncapi  # noqa: PLC0415
    from bridge.web.documents.openapi import openapi  # noqa: PLC0415
    from bridge.web.pages.reference import reference  # noqa: PLC0415

    documents = openapi(namespace, operations), asyncapi(namespace, operations)
    texts = {"namespace": escape(namespace), "version": escape(__version__)}
    worker = _script(WORKER_SCRIPTS)
    texts["worker"] = _digest(worker[0])
    styles = ("look.css", "table.css", "dashboard.css", "details.css", "webhooks.css", "narrow.css")
    dashboard = _assemble("dashboard.html", styles, SCRIPTS, ONE_WORKER, **texts)
    docs = _assemble("docs.html", ("look.css", "docs.css"), ("docs.js",), NO_TYPES, **texts, **reference(*documents))
    open_api, async_api = [(dumps(document), HEADERS, "application/json") for document in documents]
    return {"openapi": open_api, "asyncapi": async_api, "docs": docs, "dashboard": dashboard, "worker": worker}


def _read(name: str) -> str:
    """A file of this package."""
    return (_HERE / name).read_text(encoding="utf-8")


def _script(names: Iterable[str]) -> Page:
    """A worker of these files; a worker has a policy of its own."""
    policy = f"default-src 'none'; connect-src 'self'; require-trusted-types-for 'script'; {NO_TYPES}"
    return "\n".join(map(_read, names)), {"Content-Security-Policy": policy, **HEADERS}, "text/javascript"


def _assemble(template: str, styles: Iterable[str], scripts: Iterable[str], policy: str, **texts: str) -> Page:
    """`template`, `styles` and `scripts` are names of files; `texts` is markup for the template's `{{name}}`s."""
    picture = base64.b64encode(_read("icon.svg").encode()).decode()
    icon = f'<link rel="icon" href="data:image/svg+xml;base64,{picture}">'
    style, code = "\n".join(map(_read, styles)), "\n".join(map(_read, scripts))
    parts = {"style": f"<style>{style}</style>", "script": f"<script>{code}</script>", "icon": icon, **texts}
    html = _read(template)
    for name, markup in parts.items():
        html = html.replace(f"{{{{{name}}}}}", markup)
    policy = f"{POLICY}; {policy}; style-src '{_digest(style)}'; script-src '{_digest(code)}'"
    return html, {"Content-Security-Policy": policy, **HEADERS}, "text/html"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
