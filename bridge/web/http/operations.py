"""A route's declaration: its scope, parameters, body, answers and refusals.

The route is served by its declaration, and the OpenAPI document is made of it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from bridge.web import metrics
from bridge.web.http.access import Access, Principal, Scope
from bridge.web.http.parameters import TEXT, Json, Parameter
from bridge.web.http.problems import ProblemType, check_names
from bridge.web.http.request_bodies import read_model

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])

EVENTS, CVMS, WEBHOOKS, DELIVERIES = "Events", "CVMs", "Webhooks", "Deliveries"
DROP_IN, OPERATION = "Drop-in", "Operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A body of one media type. Examples are made from the `source` of the namespace's events."""

    schema: type[BaseModel] | Json = field(default_factory=lambda: TEXT)
    example: Callable[[str], Any] | None = None
    examples: Callable[[str], Mapping[str, tuple[str, str]]] | None = None
    """Summary and text by name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One status; `headers` maps names to their definitions."""

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    headers: Mapping[str, Json] = field(default_factory=dict)


LOCATION = {"Location": {"description": "Where it is", "schema": TEXT}}


def json_answer(description: str, schema: type[BaseModel] | Json, headers: Mapping[str, Json] | None = None) -> Answer:
    return Answer(description, {"application/json": Content(schema=schema)}, headers or {})


def text_answer(description: str, media_type: str) -> Answer:
    return Answer(description, {media_type: Content()})


NO_BODY = Answer("Done; the answer has no body")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a path. As a decorator it takes id, summary and description from the handler's name and docstring.

    `scope` None: no token is needed. `body` is a JSON body's model. `refusals` are those beside the ones that follow
    from scope, parameters and body.
    """

    route: str
    """Method and path."""
    tag: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter[Any], ...] = ()
    _: KW_ONLY
    id: str = ""
    summary: str = ""
    description: str = ""
    scope: Scope | None = None
    body: type[BaseModel] | None = None
    body_required: bool = True
    refusals: tuple[ProblemType, ...] = ()
    uses_redis: bool = True
    own_errors: bool = False
    """Whether its errors are not problems: `answers` has them all."""

    def __call__(self, handler: Handler) -> Handler:
        """Marks a method as this operation's handler; `routes` serves it."""
        first, *others = handler.__name__.split("_")
        summary, _, description = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
        handler.operation = replace(  # type: ignore[attr-defined]
            self,
            id=first + "".join(map(str.capitalize, others)),
            summary=summary.removesuffix("."),
            description=" ".join(description.split()),
        )
        return handler

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.route.partition(" ")[2]

    @property
    def looks_up(self) -> bool:
        """Whether the leader looks a reference up, so that upstream's own refusal may be the answer."""
        return any(each.is_reference for each in self.parameters) and not self.own_errors

    def all_refusals(self) -> list[ProblemType]:
        """In the order of the table."""
        if self.own_errors:
            return []
        if self.scope is None:
            found = set(self.refusals)
        else:
            found = {ProblemType.UNAUTHORIZED, ProblemType.INVALID, *self.refusals}
            found |= {ProblemType.TOKEN_EXPIRED} if self.scope != "token" else set()
            found |= {ProblemType.UNAVAILABLE} if self.uses_redis else set()
            found |= {ProblemType.TOO_LARGE, ProblemType.NO_JSON} if self.body else set()
            is_limited = self.looks_up or self.scope not in ("read", "token")
            found |= {ProblemType.FORBIDDEN} if is_limited else set()
        return [each for each in ProblemType if each in found]


@dataclass(frozen=True, slots=True)
class Resource:
    """A path, with what its operations have in common."""

    path: str
    tag: str
    parameters: tuple[Parameter[Any], ...] = ()
    refusals: tuple[ProblemType, ...] = ()

    def __call__(
        self,
        method: str,
        answers: Mapping[int, Answer],
        *refusals: ProblemType,
        parameters: tuple[Parameter[Any], ...] = (),
        **more: Any,
    ) -> Operation:
        """`method` may have the rest of the path after it."""
        verb, _, rest = method.partition(" ")
        every, refused = (*self.parameters, *parameters), (*self.refusals, *refusals)
        return Operation(f"{verb} {self.path}{rest}", self.tag, answers, every, refusals=refused, **more)


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted request of an operation; `principal` may do what the operation's scope allows."""

    operation: Operation
    request: Request
    principal: Principal

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def get(self, parameter: Parameter[T]) -> T:
        """Raises ProblemError 422."""
        return parameter.read(self.request.query_params)

    async def body(self, model: type[Body]) -> Body:
        """The body, of the declared model. Raises ProblemError 413, 415 or 422."""
        assert model is self.operation.body, "the handler's model must be the declared one"
        return await read_model(self.request, model, optional=not self.operation.body_required)


def declared(owner: type) -> Iterator[Operation]:
    """The operations of a class, in the order of their declaration."""
    for each in vars(owner).values():
        if isinstance(found := getattr(each, "operation", each), Operation):
            yield found


def routes(owner: object, access: Access) -> list[Route]:
    """The routes of an object's handlers."""
    members = vars(type(owner)).values()
    return [_route(owner, each, each.operation, access) for each in members if hasattr(each, "operation")]


def _route(owner: object, handler: Callable[..., Awaitable[Response]], operation: Operation, access: Access) -> Route:
    known = [each.name for each in operation.parameters if each.where == "query"]

    async def serve(request: Request) -> Response:
        principal = access.admit(request, operation.scope)
        if operation.scope is not None:
            check_names(request.query_params, known)
        return await handler(owner, Call(operation, request, principal))

    route = Route(operation.path, serve, methods=[operation.method])
    route.app = _counted(route.app, operation.route)
    return route


def _counted(app: ASGIApp, route: str) -> ASGIApp:
    """Counts what is answered, problems included, under the route as it is declared: a path would have no bound."""

    async def call(scope: AsgiScope, receive: Receive, send: Send) -> None:
        now = asyncio.get_running_loop().time
        begun_at = now()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.REQUESTS.labels(route, message["status"]).inc()
                metrics.REQUEST_SECONDS.labels(route).observe(now() - begun_at)
            await send(message)

        await app(scope, receive, sending)

    return call
