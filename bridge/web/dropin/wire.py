"""Upstream's shapes: the SSE events of its state route, and its error bodies."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from bridge.events import dumps
from bridge.web.http.problems import ProblemError
from bridge.web.streaming.frames import block

NOT_AUTHENTICATED, INVALID_KEY = "Not authenticated", "Invalid API key"


def complete(status: str, elapsed: float) -> bytes:
    return block("complete", dumps({"status": status, "elapsed": round(elapsed, 1), "target": status}))


def timeout(target: str, elapsed: float) -> bytes:
    return _timeout(f"Timeout waiting for status '{target}'", target, elapsed)


def going_away(target: str, elapsed: float) -> bytes:
    """The end of a stream because the front end stops.

    It is a `timeout`, after which each published watcher asks again. One of them takes a plain end of the body for
    success, and another takes a broken connection for an error.
    """
    return _timeout("The bridge is shutting down, ask again", target, elapsed)


def no_longer_visible(target: str, elapsed: float) -> bytes:
    """As `going_away`: the token has changed or has gone, or its name is another CVM's now."""
    return _timeout("What this token may see has changed, ask again", target, elapsed)


def _timeout(why: str, target: str, elapsed: float) -> bytes:
    return block("timeout", dumps({"error": why, "elapsed": round(elapsed, 1), "target": target}))


def gone(elapsed: float) -> bytes:
    message = "The CVM has been deleted"
    return block("error", dumps({"error": "CVM not found", "elapsed": round(elapsed, 1), "message": message}))


def stale(reason: str, elapsed: float) -> bytes:
    """An `error` after which the stream goes on."""
    return block("error", dumps({"error": stale_sentence(reason), "elapsed": round(elapsed, 1), "message": reason}))


def stale_sentence(reason: str) -> str:
    return f"The bridge cannot vouch for this CVM's state just now: {reason}"


def detail(status: int, why: object, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the shape of upstream's errors without a code, in the same bytes as FastAPI writes."""
    return JSONResponse({"detail": why}, status, {"Cache-Control": "no-store", **(headers or {})})


def not_found(reference: str) -> JSONResponse:
    """A 404 where upstream's own body is not at hand: the reference is impossible, or the CVM was just deleted."""
    message = "CVM not found"
    body = {
        "error_code": "ERR-03-001",
        "message": message,
        "details": [{"field": "cvm_id", "value": reference, "message": message}],
        "suggestions": ["Check the identifier, and that it is in this workspace"],
        "links": [],
    }
    return JSONResponse(body, 404, {"Cache-Control": "no-store"})


def refused(problem: ProblemError, *, keyed: bool) -> JSONResponse:
    """A problem of the bridge in upstream's shape; `keyed`: whether the caller sent any key."""
    if problem.status == 401:
        return detail(401, INVALID_KEY if keyed else NOT_AUTHENTICATED, problem.headers)
    why = f"{problem.title}: {problem.detail}" if problem.detail else problem.title
    return detail(problem.status, why, problem.headers)
