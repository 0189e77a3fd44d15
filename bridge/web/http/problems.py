"""Errors as RFC 9457 problems: a stable `type`, a sentence, and the field where one is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bridge.events import dumps
from bridge.store.errors import StoreError

logger = logging.getLogger(__name__)

_TITLES = {404: ("not-found", "No such route"), 405: ("method-not-allowed", "This route has other methods")}


class ProblemError(Exception):
    """A request that gets `status` and says why; `field` names the query parameter, header or body field."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        *,
        detail: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.slug = slug
        self.headers = dict(headers or {})
        self.body: dict[str, object] = {"type": f"urn:bridge:problem:{slug}", "title": title, "status": status}
        if detail is not None:
            self.body["detail"] = detail
        if field is not None:
            self.body["errors"] = [{"field": field, "detail": detail or title}]


def problem_response(problem: ProblemError) -> Response:
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(dumps(problem.body), problem.status, headers, "application/problem+json")


def invalid(field: str, detail: str) -> ProblemError:
    """422 naming the field."""
    return ProblemError(422, "invalid", f"{field} is not valid", detail=detail, field=field)


def unavailable(detail: str, seconds: int = 2) -> ProblemError:
    """503: it passes; come back after `seconds`."""
    return ProblemError(
        503, "unavailable", "Not available just now", detail=detail, headers={"Retry-After": str(seconds)}
    )


def check_query(request: Request, known: Iterable[str]) -> None:
    """Unknown query parameters are an error, never ignored."""
    check_names(request.query_params, known)


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    allowed = {*known, "access_token"}
    for name in given:
        if name not in allowed:
            raise invalid(name[:100], f"unknown query parameter; known here: {', '.join(sorted(known)) or 'none'}")


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    slug, title = _TITLES.get(error.status_code, ("http", error.detail))
    return problem_response(ProblemError(error.status_code, slug, title, headers=error.headers))


async def on_store_error(request: Request, error: Exception) -> Response:
    logger.warning("a request could not be served", extra={"path": request.url.path, "error": str(error)})
    return problem_response(unavailable("Redis cannot be used just now"))


async def on_crash(request: Request, error: Exception) -> Response:
    return problem_response(ProblemError(500, "internal", "The bridge failed; its log says more"))


HANDLERS = {
    ProblemError: on_problem,
    HTTPException: on_http_exception,
    StoreError: on_store_error,
    Exception: on_crash,
}
