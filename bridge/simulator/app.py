"""The simulator's app, and its routes under `/api/v1`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.phala_queries import Query, UnprocessableError, pace, whole_number
from bridge.simulator import bodies
from bridge.simulator.bodies import RefusalError
from bridge.simulator.control import control_routes
from bridge.simulator.faults import Fault, RouteName
from bridge.simulator.simulator import RecordedRequest, Simulator
from bridge.simulator.streams import EXTENSION, StreamResponse, disconnected
from bridge.simulator.webhooks import WebhookSender
from bridge.simulator.workspace_webhooks import WorkspaceWebhooks
from bridge.simulator.world import Cvm, dumps

Handler = Callable[[Simulator, Request, str], Awaitable[ASGIApp]]

#: Simulated seconds between two looks for changes that are due; requests look as well.
TICK = 0.25

PAGE, PAGE_SIZE = whole_number(1), whole_number(1, 100)


def create_app(simulator: Simulator) -> Starlette:
    webhooks = WebhookSender(simulator)
    return Starlette(
        routes=[*_routes(simulator, webhooks), Mount("/control", routes=control_routes(simulator, webhooks))],
        exception_handlers={HTTPException: _http_error, ClientDisconnect: _left},
        lifespan=lambda _: _living(simulator, webhooks),
    )


@contextlib.asynccontextmanager
async def _living(simulator: Simulator, webhooks: WebhookSender) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tick = group.create_task(_tick(simulator), name="simulator-tick")
        sender = group.create_task(webhooks.run(), name="simulator-webhooks")
        yield
        tick.cancel()
        sender.cancel()


async def _tick(simulator: Simulator) -> None:
    """Lets changes happen without requests, for pushed changes and webhooks."""
    while True:
        simulator.advance()
        await simulator.clock.sleep(max(TICK * simulator.settings.time_scale, 0.01))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _left(_: Request, __: Exception) -> Response:
    """The client left in the middle of its body, as a leader that stops: nobody reads an answer."""
    return Response(status_code=400)


def _routes(simulator: Simulator, webhooks: WebhookSender) -> list[Route]:
    workspace = WorkspaceWebhooks(webhooks)
    routes = [
        Route("/api/v1/workspace/webhooks", ApiRoute(simulator, "webhooks", workspace.listed), methods=["GET"]),
        Route("/api/v1/workspace/webhooks", ApiRoute(simulator, "webhooks", workspace.create), methods=["POST"]),
        Route("/api/v1/workspace/webhooks/{id}", ApiRoute(simulator, "webhooks", workspace.delete), methods=["DELETE"]),
        Route(
            "/api/v1/workspace/webhooks/{id}/deliveries",
            ApiRoute(simulator, "webhooks", workspace.deliveries),
            methods=["GET"],
        ),
        Route("/api/v1/cvms/paginated", ApiRoute(simulator, "list", _list), methods=["GET"]),
        Route("/api/v1/cvms/{ref}/state", ApiRoute(simulator, "state", _state), methods=["GET"]),
        Route("/api/v1/cvms/{ref}", ApiRoute(simulator, "details", _details), methods=["GET"]),
        Route("/api/v1/status/batch", ApiRoute(simulator, "batch", _batch), methods=["POST"]),
    ]
    for route in routes:
        assert route.methods is not None
        route.methods.discard("HEAD")  # FastAPI adds none
    return routes


@dataclass(frozen=True)
class ApiRoute:
    """One route as an ASGI app: it counts the request, applies faults, checks the key, and answers."""

    simulator: Simulator
    name: RouteName
    handler: Handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()  # afterwards `receive` returns only once the client is gone
        self.simulator.advance()
        record = self._record(request)
        self.simulator.counters.count_request(record)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.simulator.counters.count_answer(record, message["status"])
            await send(message)

        answer = await self._answer(request, record)
        await answer(scope, receive, counted)

    def _record(self, request: Request) -> RecordedRequest:
        route: RouteName = "stream" if self.name == "state" and "target" in request.query_params else self.name
        ref = request.path_params.get("ref")
        user = self.simulator.user(request.headers.get("x-api-key"))
        found = self.simulator.world.find(ref, user) if ref is not None else []
        cvm = found[0].vm_uuid if len(found) == 1 else None
        return RecordedRequest(self.simulator.now(), route, ref, cvm, user, request.url.query)

    async def _answer(self, request: Request, record: RecordedRequest) -> ASGIApp:
        fault = self.simulator.faults.take(record.route, record.cvm, record.user)
        if fault is not None and fault.status is not None:
            return FaultyAnswer(self.simulator, fault, _fault_response(fault, fault.status))
        answer = await self._true_answer(request, record)
        if isinstance(answer, StreamResponse):
            answer.fault = fault
        return answer if fault is None or record.route == "stream" else FaultyAnswer(self.simulator, fault, answer)

    async def _true_answer(self, request: Request, record: RecordedRequest) -> ASGIApp:
        try:
            if record.user is None:
                key = request.headers.get("x-api-key")
                raise RefusalError(401, {"detail": "Invalid API key" if key else "Not authenticated"})
            return await self.handler(self.simulator, request, record.user)
        except RefusalError as error:
            return JSONResponse(error.body, error.status)
        except UnprocessableError as error:
            return JSONResponse({"detail": error.detail}, 422)


@dataclass(frozen=True)
class FaultyAnswer:
    """An answer that comes late, is cut off, or never comes. It ends when its client goes or the simulator closes."""

    simulator: Simulator
    fault: Fault
    answer: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (self.fault.delay or self.fault.action == "hang") and not await self._still_wanted(receive):
            return
        if self.fault.action == "reset":
            scope["extensions"][EXTENSION]("reset")
            await receive()
        else:
            await self.answer(scope, receive, send)

    async def _still_wanted(self, receive: Receive) -> bool:
        """Waits for the fault's delay; less if the simulator closes. False once the client is gone."""
        gone = asyncio.create_task(disconnected(receive), name="simulator-gone")
        closing = asyncio.create_task(self.simulator.closing.wait(), name="simulator-closing")
        seconds = None if self.fault.action == "hang" else self.fault.delay
        try:
            await asyncio.wait({gone, closing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            gone.cancel()
            closing.cancel()
            await asyncio.wait({gone, closing})


def _fault_response(fault: Fault, status: int) -> Response:
    body = bodies.DEFAULT_BODIES.get(status, {"detail": "Error"}) if fault.body is None else fault.body
    if isinstance(body, str):
        return Response(body, status, fault.headers)
    return Response(dumps(body), status, {"content-type": "application/json"} | fault.headers)


def _json(body: object) -> Response:
    return Response(dumps(body), media_type="application/json")


def _told(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    return body if simulator.settings.operations else bodies.without_operations(body)


def _found(simulator: Simulator, ref: str, user: str) -> Cvm:
    """The only CVM that `ref` finds. Raises RefusalError (404, 409)."""
    found = simulator.world.find(ref, user)
    if len(found) != 1:
        raise bodies.not_one(ref, found)
    return found[0]


async def _state(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    interval_and_timeout = pace(request.query_params)
    target = request.query_params.get("target")
    if target in simulator.settings.refuse_targets:
        fault = {"type": "enum", "loc": ["query", "target"], "msg": "Input is no status to wait for", "input": target}
        raise UnprocessableError([fault])
    cvm = _found(simulator, request.path_params["ref"], user)
    if target is None:
        return Response(cvm.body(simulator.now()), media_type="application/json")
    return StreamResponse(simulator, cvm, user, target, interval_and_timeout)


async def _details(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    cvm = _found(simulator, request.path_params["ref"], user)
    newer = request.headers.get("x-phala-version", "") >= bodies.NEWER_DETAILS
    return _json(_told(simulator, bodies.newer_details(cvm) if newer else bodies.older_details(cvm)))


async def _list(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    query = Query(request.query_params)
    page, size = query.integer("page", PAGE, 1), query.integer("page_size", PAGE_SIZE, 30)
    query.check()
    mine = simulator.world.seen_by(user)
    shown = mine[(page - 1) * size : page * size]
    newer = request.headers.get("x-phala-version", "") >= bodies.NEWER_LISTS
    now = simulator.now()
    items = [_told(simulator, bodies.newer_item(cvm) if newer else bodies.older_item(cvm, now)) for cvm in shown]
    pages = -(-len(mine) // size)
    return _json({"items": items, "total": len(mine), "page": page, "page_size": size, "pages": pages})


class BatchRequest(BaseModel):
    """The body of `POST /status/batch`."""

    vm_uuids: list[str]


def batch_request(body: bytes) -> BatchRequest:
    """Raises UnprocessableError, and UnicodeDecodeError, which FastAPI makes a 400."""
    return bodies.read(body, BatchRequest)


async def _batch(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    try:
        wanted = batch_request(await request.body()).vm_uuids
    except UnicodeDecodeError:
        raise RefusalError(400, {"detail": "There was an error parsing the body"}) from None
    missing = {cvm.vm_uuid for ref in simulator.settings.batch_missing for cvm in simulator.world.find_any(ref)}
    found = {ref: cvm for ref in wanted if (cvm := simulator.world.by_uuid(ref, user)) and cvm.vm_uuid not in missing}
    now, words = simulator.now(), simulator.settings.batch_words
    return _json({ref: _told(simulator, bodies.batch_status(cvm, now, words)) for ref, cvm in found.items()})
