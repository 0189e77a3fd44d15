"""The routes of the simulated Phala Cloud under `/api/v1`, and the app that holds them and the control
routes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.clock import Clock, SystemClock
from bridge.phala_queries import Query, UnprocessableError, pace
from bridge.simulator import shapes
from bridge.simulator.control import control_routes
from bridge.simulator.faults import Fault, RouteName
from bridge.simulator.hooks import Hooks
from bridge.simulator.shapes import UpstreamError
from bridge.simulator.simulator import Settings, Simulator, Visit
from bridge.simulator.streams import EXTENSION, StreamAnswer
from bridge.simulator.validation import PAGE, PAGE_SIZE, batch_request
from bridge.simulator.world import Cvm, World, dumps

Handler = Callable[[Simulator, Request, str], Awaitable[ASGIApp]]

#: How long (simulated seconds) a change may be due before the world notices without a request.
TICK = 0.25


def create_app(
    world: World,
    *,
    keys: Mapping[str, str] | None = None,
    time_scale: float = 1.0,
    instant: bool = False,
    clock: Clock | None = None,
) -> Starlette:
    """The app; `app.state.simulator` is what it serves. `keys` maps API keys to users, None: every key is
    the demo user's. `time_scale`: real seconds per simulated second. `instant`: streams send changes when
    they happen.
    """
    settings = Settings(
        frozen=world.frozen,
        instant=instant,
        time_scale=time_scale,
        keys=None if keys is None else dict(keys),
    )
    simulator = Simulator(world, settings, clock or SystemClock())
    hooks = Hooks(simulator)
    app = Starlette(
        routes=[
            *_routes(simulator),
            Mount("/control", routes=control_routes(simulator, hooks)),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lambda _: _living(simulator, hooks),
    )
    app.state.simulator = simulator
    return app


@contextlib.asynccontextmanager
async def _living(simulator: Simulator, hooks: Hooks) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_tick(simulator), name="simulator-tick"),
            group.create_task(hooks.run(), name="simulator-hooks"),
        ]
        yield
        for task in tasks:
            task.cancel()


async def _tick(simulator: Simulator) -> None:
    """Lets the world go on when nobody asks: pushed changes and webhooks wait for no request."""
    while True:
        simulator.advance()
        await simulator.clock.sleep(max(TICK * simulator.settings.time_scale, 0.01))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def _routes(simulator: Simulator) -> list[Route]:
    routes = [
        Route("/api/v1/cvms/paginated", Endpoint(simulator, "list", _list), methods=["GET"]),
        Route("/api/v1/cvms/{ref}/state", Endpoint(simulator, "state", _state), methods=["GET"]),
        Route("/api/v1/cvms/{ref}", Endpoint(simulator, "details", _details), methods=["GET"]),
        Route("/api/v1/status/batch", Endpoint(simulator, "batch", _batch), methods=["POST"]),
    ]
    for route in routes:
        assert route.methods is not None
        route.methods.discard("HEAD")  # FastAPI adds none
    return routes


class Endpoint:
    """One route as an ASGI app: counts, meets faults, checks the key, then answers."""

    def __init__(self, simulator: Simulator, name: RouteName, handler: Handler) -> None:
        self._simulator = simulator
        self._name = name
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()  # after it `receive` only tells when the client has gone
        self._simulator.advance()
        visit = self._visit(request)
        self._simulator.counters.came(visit)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._simulator.counters.answered(visit, message["status"])
            await send(message)

        answer = await self._answer(request, visit)
        await answer(scope, receive, counted)

    def _visit(self, request: Request) -> Visit:
        route: RouteName = self._name
        if route == "state" and "target" in request.query_params:
            route = "stream"
        ref = request.path_params.get("ref")
        user = self._simulator.user(request.headers.get("x-api-key"))
        found = self._simulator.world.find(ref, user) if ref is not None else []
        cvm = found[0].vm_uuid if len(found) == 1 else None
        return Visit(self._simulator.now(), route, ref, cvm, user, request.url.query)

    async def _answer(self, request: Request, visit: Visit) -> ASGIApp:
        fault = self._simulator.faults.take(visit.route, visit.cvm, visit.user)
        if fault is not None and (fault.status is not None or visit.route != "stream"):
            answer = _faulty(fault) if fault.status is not None else await self._true_answer(request, visit)
            return Obstructed(self._simulator, fault, answer)
        answer = await self._true_answer(request, visit)
        if isinstance(answer, StreamAnswer):
            answer.fault = fault
        return answer

    async def _true_answer(self, request: Request, visit: Visit) -> ASGIApp:
        try:
            if visit.user is None:
                raise shapes.unauthorized(request.headers.get("x-api-key"))
            return await self._handler(self._simulator, request, visit.user)
        except UpstreamError as error:
            return JSONResponse(error.body, error.status)
        except UnprocessableError as error:
            return JSONResponse({"detail": error.detail}, 422)


class Obstructed:
    """An answer that comes late, is cut off, or never comes; ends when the client goes or the simulator
    closes.
    """

    def __init__(self, simulator: Simulator, fault: Fault, answer: ASGIApp) -> None:
        self._simulator = simulator
        self._fault = fault
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waits = self._fault.delay or self._fault.action == "hang"
        if waits and not await self._still_wanted(receive):
            return
        connection: Any = scope.get("extensions", {}).get(EXTENSION)
        if self._fault.action == "reset" and connection is not None:
            connection.cut("reset")
            await receive()
            return
        await self._answer(scope, receive, send)

    async def _still_wanted(self, receive: Receive) -> bool:
        """Waits, no longer than there is a client; at the simulator's end it answers at once."""
        gone = asyncio.create_task(_disconnected(receive), name="simulator-gone")
        closing = asyncio.create_task(self._simulator.closing.wait(), name="simulator-closing")
        seconds = None if self._fault.action == "hang" else self._fault.delay
        try:
            await asyncio.wait({gone, closing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            gone.cancel()
            closing.cancel()
            await asyncio.wait({gone, closing})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _faulty(fault: Fault) -> Response:
    assert fault.status is not None
    body = shapes.DEFAULT_BODIES.get(fault.status, {"detail": "Error"}) if fault.body is None else fault.body
    if isinstance(body, str):
        return Response(body, fault.status, fault.headers)
    return Response(dumps(body), fault.status, {"content-type": "application/json"} | fault.headers)


def _found(simulator: Simulator, ref: str, user: str) -> Cvm:
    """The one CVM that `ref` names. Raises UpstreamError (404, 409)."""
    found = simulator.world.find(ref, user)
    if not found:
        raise shapes.not_found(ref)
    if len(found) > 1:
        raise shapes.ambiguous(ref, found)
    return found[0]


async def _state(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    interval, timeout = pace(request.query_params)
    target = request.query_params.get("target")
    if target in simulator.settings.refuse_targets:
        raise UpstreamError(422, shapes.refused_target(target))
    cvm = _found(simulator, request.path_params["ref"], user)
    if target is None:
        return Response(cvm.body(simulator.now()), media_type="application/json")
    return StreamAnswer(simulator, cvm, user, target, (interval, timeout))


async def _details(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    cvm = _found(simulator, request.path_params["ref"], user)
    newer = shapes.is_newer(request.headers.get("x-phala-version"), shapes.NEWER_DETAILS)
    body = shapes.newer_details(cvm) if newer else shapes.older_details(cvm)
    return Response(dumps(body), media_type="application/json")


async def _list(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    query = Query(request.query_params)
    page, size = query.integer("page", PAGE, 1), query.integer("page_size", PAGE_SIZE, 30)
    query.check()
    mine = simulator.world.seen_by(user)
    shown = mine[(page - 1) * size : page * size]
    newer = shapes.is_newer(request.headers.get("x-phala-version"), shapes.NEWER_LISTS)
    now = simulator.now()
    items = [shapes.newer_item(cvm) if newer else shapes.older_item(cvm, now) for cvm in shown]
    return Response(dumps(shapes.page_of(items, len(mine), page, size)), media_type="application/json")


async def _batch(simulator: Simulator, request: Request, user: str) -> ASGIApp:
    try:
        wanted = batch_request(await request.body()).vm_uuids
    except UnicodeDecodeError:
        raise UpstreamError(400, {"detail": "There was an error parsing the body"}) from None
    missing = {cvm.vm_uuid for ref in simulator.settings.batch_missing for cvm in simulator.world.find_any(ref)}
    found = {ref: simulator.world.by_uuid(ref, user) for ref in wanted}
    now, words = simulator.now(), simulator.settings.batch_words
    answer = {
        ref: shapes.batch_status(cvm, now, words)
        for ref, cvm in found.items()
        if cvm is not None and cvm.vm_uuid not in missing
    }
    return Response(dumps(answer), media_type="application/json")
