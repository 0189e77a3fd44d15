"""What upstream says, in upstream's shapes: SSE events of the state route and error bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from bridge.events import dumps
from bridge.web.http.problems import ProblemError
from bridge.web.streaming.frames import block

NOT_AUTHENTICATED, INVALID_KEY = "Not authenticated", "Invalid API key"


def state(raw: str) -> bytes:
    """`raw` is upstream's JSON, on one line."""
    return block("state", raw)


def complete(status: str, elapsed: float) -> bytes:
    return block("complete", dumps({"status": status, "elapsed": round(elapsed, 1), "target": status}))


def timeout(target: str, elapsed: float) -> bytes:
    return _timeout(f"Timeout waiting for status '{target}'", target, elapsed)


def going_away(target: str, elapsed: float) -> bytes:
    """A front end that ends. A `timeout`, because that is what makes each published watcher ask again: a plain end of
    the body is success to one of them, a broken connection an error to another.
    """
    return _timeout("The bridge is shutting down, ask again", target, elapsed)


def _timeout(why: str, target: str, elapsed: float) -> bytes:
    return block("timeout", dumps({"error": why, "elapsed": round(elapsed, 1), "target": target}))


def gone(elapsed: float) -> bytes:
    message = "The CVM has been deleted"
    return block("error", dumps({"error": "CVM not found", "elapsed": round(elapsed, 1), "message": message}))


def stale(reason: str, elapsed: float) -> bytes:
    """No end: the stream goes on."""
    said = {"error": stale_sentence(reason), "elapsed": round(elapsed, 1), "message": reason}
    return block("error", dumps(said))


def stale_sentence(reason: str) -> str:
    return f"The bridge cannot vouch for this CVM's state just now: {reason}"


def json_response(content: Any, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Bytes as FastAPI writes them."""
    return JSONResponse(content, status, {"Cache-Control": "no-store", **(headers or {})})


def detail(status: int, why: object, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the shape that every upstream error without a code has."""
    return json_response({"detail": why}, status, headers)


def not_found(reference: str) -> JSONResponse:
    """Where upstream's own body cannot be had: a reference that cannot name a CVM, or one deleted a moment ago."""
    message = "CVM not found"
    body = {
        "error_code": "ERR-03-001",
        "message": message,
        "details": [{"field": "cvm_id", "value": reference, "message": message}],
        "suggestions": ["Check the identifier, and that it is in this workspace"],
        "links": [],
    }
    return json_response(body, 404)


def refused(problem: ProblemError, *, keyed: bool) -> JSONResponse:
    """A problem of the bridge's own; `keyed`: whether the caller brought a key at all."""
    if problem.status == 401:
        return detail(401, INVALID_KEY if keyed else NOT_AUTHENTICATED, problem.headers)
    why = f"{problem.title}: {problem.detail}" if problem.detail else problem.title
    return detail(problem.status, why, problem.headers)
