"""Errors as RFC 9457 problems: one table of all types, from which routes raise and the documents are made."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bridge.store import errors
from bridge.web.http.responses import NO_STORE, Shape, described, time_field

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_rng = random.Random()


class ProblemType(Enum):
    """Status, title, its meaning in the document (by default the title), and seconds of `Retry-After` (0: absent)."""

    UNAUTHORIZED = 401, "A valid token is needed"
    TOKEN_EXPIRED = 401, "This stream token has expired", "The stream token is older than 60 seconds"
    BAD_SIGNATURE = 401, "The webhook is forged, or its time is more than five minutes off"
    FORBIDDEN = 403, "This token does not allow this", "The token's scope or its list of CVMs does not allow this"
    CROSS_SITE = 403, "A page of another origin must not do this"
    NOT_FOUND = 404, "There is no such route"
    NOT_WATCHED = 404, "This CVM is not watched", "The CVM is not watched: `PUT /v1/cvms/{ref}` watches it"
    NO_SUCH_ENDPOINT = 404, "There is no such webhook endpoint"
    NO_SUCH_DELIVERY = 404, "There is no such delivery, or it is no longer kept"
    METHOD_NOT_ALLOWED = 405, "This route does not have this method"
    WAIT_TIMEOUT = (
        408,
        "It has not come true yet",
        "`timeout` is over: wait again, `after` this `cursor` or without one",
    )
    PINNED_BY_CONFIG = 409, "BRIDGE_CVMS pins this CVM"
    ENDPOINT_BROKEN = 409, "The endpoint's record in Redis cannot be read: delete it, or register it again with PUT"
    ENDPOINT_DISABLED = 409, "The endpoint is disabled: enable it first"
    ALREADY_PENDING = 409, "The delivery waits behind another one, or is being attempted"
    BEING_ATTEMPTED = 409, "The delivery is being attempted: cancel it after the attempt, if it is still pending then"
    DELIVERY_FINISHED = 409, "The delivery is delivered or given up"
    TOO_MANY_ENDPOINTS = 409, "There are as many webhook endpoints as the bridge keeps"
    WAIT_FAILED = 409, "It can no longer come true", "`items` has the CVMs in trouble, and why"
    HISTORY_LOST = 410, "The log no longer has the events after this cursor"
    UNKNOWN_CURSOR = 410, "The log does not have this cursor", "It is of another log, lost, in the future or malformed"
    TOO_LARGE = 413, "The body is too large"
    NO_JSON = 415, "The body must be declared as JSON"
    MISDIRECTED = 421, "This host name is not this bridge's"
    INVALID = 422, "The request is not valid", "`errors` names each wrong field, unknown ones included"
    TOO_MANY_STREAMS = 429, "This token has too many streams open", "", 10
    TOO_MANY_LOOKUPS = 429, "This token has named too many unknown CVMs", "", 10
    INTERNAL = 500, "The bridge failed"
    UNAVAILABLE = 503, "Not available at the moment", "A passing failure: ask again after `Retry-After`", 2
    OVERLOADED = 503, "This front end takes no more streams", "The front end is full or is shutting down", 10
    CANNOT_TELL = 503, "The bridge cannot tell", "It could not vouch for the state of a CVM when `timeout` was over", 5
    NO_SECRET_KEY = 503, "BRIDGE_SECRET_KEY is not set, or does not open what is sealed in Redis"
    UPSTREAM = 503, "Upstream could not be asked about this CVM", "", 5
    HTTP = 400, "The request is not valid HTTP for this server"

    def __init__(self, status: int, title: str, meaning: str = "", retry_after: int = 0) -> None:
        self.status = status
        self.title = title
        self.meaning = meaning or title
        self.retry_after = retry_after

    @property
    def slug(self) -> str:
        """The end of `type`; also the name of the event that tells a browser to come back."""
        return self.name.lower().replace("_", "-")

    @property
    def urn(self) -> str:
        return f"urn:bridge:problem:{self.slug}"


COME_BACK = (
    ProblemType.OVERLOADED,
    ProblemType.UNAVAILABLE,
    ProblemType.UPSTREAM,
    ProblemType.TOO_MANY_STREAMS,
    ProblemType.TOO_MANY_LOOKUPS,
    ProblemType.TOKEN_EXPIRED,
)
"""Passing problems of a stream, told as an event: a browser's EventSource gives up at any status but 200."""


class FieldFault(Shape):
    """One thing that is wrong with a request."""

    field: str = described("A query parameter, a header or a field of the body", "limit")
    detail: str = described("What it must be", "a whole number from 1 to 1000")


class WaitedCvm(Shape):
    """A CVM that was waited for."""

    cvm_id: str = described("Its canonical id")
    name: str | None = described("Its name, if upstream has one", "web-1")
    status: str | None = described("Null until it is first seen", "running")
    ready: bool | None = described("Null where upstream tells nothing of operations", True)
    since: str | None = time_field("When the status became this one, if that is known.")
    reason: str = described(
        "Of a failure: `error`, `boot_error` or `deleted`. Else why the bridge cannot vouch for it; or empty", ""
    )
    boot_error: str | None = described("Upstream's words, where there are any")


class Problem(Shape):
    """RFC 9457: why a request was refused. Programs go by `type`, which is stable."""

    type: Literal[tuple(each.urn for each in ProblemType)] = described(  # type: ignore[valid-type]
        "Stable; see the list of problems"
    )
    title: str = described("For people", "limit is not valid")
    status: int = described("The status of the answer", 422)
    detail: str = described("What to do about it", default_factory=str)
    errors: list[FieldFault] = described("The fields that are wrong", default_factory=list)
    cursor: str = described("Of a wait: the last event that it considered", default_factory=str)
    items: list[WaitedCvm] = described("Of a wait: the CVMs that were not reached", default_factory=list)


class ProblemError(Exception):
    """A request that is refused with a problem of this type; `faults` are (field, detail) of each wrong field."""

    def __init__(
        self,
        type: ProblemType,
        detail: str | None = None,
        *,
        title: str | None = None,
        status: int | None = None,
        faults: Iterable[tuple[str, str]] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`more`: further members of the body."""
        self.type = type
        self.title = title or type.title
        self.detail = detail
        self.status = status or type.status
        self.faults = tuple(faults)
        self.more = dict(more or {})
        self.headers = dict(headers or {})
        if seconds := type.retry_after if retry_after is None else retry_after:
            # At least so long. Clients that were refused together must not return together.
            self.headers["Retry-After"] = str(seconds + _rng.randint(0, seconds))
        super().__init__(self.title)

    @property
    def body(self) -> Problem:
        given: dict[str, Any] = {**({"detail": self.detail} if self.detail else {}), **self.more}
        if self.faults:
            given["errors"] = [FieldFault(field=field, detail=detail) for field, detail in self.faults]
        return Problem(type=self.type.urn, title=self.title, status=self.status, **given)


def problem_response(problem: ProblemError) -> Response:
    return Response(problem.body.json_text(), problem.status, {**NO_STORE, **problem.headers}, MEDIA_TYPE)


def invalid(field: str, detail: str, *more: tuple[str, str]) -> ProblemError:
    """422 for this field; `more` are (field, detail) of further ones."""
    return ProblemError(ProblemType.INVALID, detail, title=f"{field} is not valid", faults=[(field, detail), *more])


def unavailable(detail: str, seconds: int | None = None) -> ProblemError:
    """503 for a failure that passes; `seconds` is when to ask again."""
    return ProblemError(ProblemType.UNAVAILABLE, detail, retry_after=seconds)


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ProblemError 422 for an unknown query parameter: none is ignored."""
    allowed = {*known, "access_token"}
    for name in given:
        if name not in allowed:
            raise invalid(name[:100], f"unknown query parameter; known here: {', '.join(sorted(known)) or 'none'}")


_REFUSALS: Mapping[type[Exception], ProblemType] = {
    errors.UnknownEndpointError: ProblemType.NO_SUCH_ENDPOINT,
    errors.UnknownDeliveryError: ProblemType.NO_SUCH_DELIVERY,
    errors.BrokenEndpointError: ProblemType.ENDPOINT_BROKEN,
    errors.EndpointDisabledError: ProblemType.ENDPOINT_DISABLED,
    errors.AlreadyPendingError: ProblemType.ALREADY_PENDING,
    errors.BeingAttemptedError: ProblemType.BEING_ATTEMPTED,
    errors.FinishedDeliveryError: ProblemType.DELIVERY_FINISHED,
    errors.TooManyEndpointsError: ProblemType.TOO_MANY_ENDPOINTS,
    errors.UnopenedError: ProblemType.NO_SECRET_KEY,
}
"""Errors of the store that are no failure of Redis."""


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The client left in the middle of its body: nobody reads an answer."""
    logger.info("a client left before its request was complete", extra={"path": request.url.path})
    return Response(status_code=400)


async def on_error(request: Request, error: Exception) -> Response:
    """Answers with the problem of any error that a route may raise."""
    match error:
        case ProblemError():
            problem = error
        case HTTPException(status_code=404):
            problem = ProblemError(ProblemType.NOT_FOUND, headers=error.headers)
        case HTTPException(status_code=405):
            problem = ProblemError(ProblemType.METHOD_NOT_ALLOWED, headers=error.headers)
        case HTTPException():
            problem = ProblemError(
                ProblemType.HTTP, title=error.detail, status=error.status_code, headers=error.headers
            )
        case errors.StoreError() if type(error) in _REFUSALS:
            problem = ProblemError(_REFUSALS[type(error)])
        case errors.StoreError():
            logger.warning("a request could not be served", extra={"path": request.url.path, "error": str(error)})
            problem = no_redis()
        case _:
            problem = ProblemError(ProblemType.INTERNAL, "the bridge's log has the reason")
    return problem_response(problem)


def no_redis() -> ProblemError:
    return unavailable("the front end cannot use Redis at the moment")


HANDLERS = {
    ClientDisconnect: on_disconnect,
    **dict.fromkeys((ProblemError, HTTPException, errors.StoreError, Exception), on_error),
}
