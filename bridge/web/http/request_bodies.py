"""Request bodies: read up to a cap, and JSON objects checked field by field."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from bridge.web.http.problems import ProblemError, invalid

MAX_BODY = 64 * 1024
"""Bytes; an endpoint with a hundred long headers has less, and so has a Phala Cloud webhook."""

MOST_ERRORS = 20
"""Named in one answer; whoever has more mends these first."""

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request) -> bytes:
    """Raises ProblemError 413."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ProblemError(413, "too-large", f"A body has at most {MAX_BODY} bytes here")
    return bytes(body)


async def read_model(request: Request, model: type[Model], *, optional: bool = False) -> Model:
    """The body as `model`. `optional`: no body at all is an empty object. Raises ProblemError 413, 415 or 422.

    The content type is insisted on: a page in a browser may send anything else to a bridge on its own machine without
    asking first.
    """
    body = await read_body(request)
    if optional and not body.strip():
        return _checked(model, {})
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise ProblemError(415, "no-json", "The body must be JSON", detail="send Content-Type: application/json")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise invalid("body", "it is not JSON") from None
    return _checked(model, given)


def _checked(model: type[Model], given: object) -> Model:
    if not isinstance(given, dict):
        raise invalid("body", "it must be a JSON object")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MOST_ERRORS]
        raise _refused([(_field(each), _said(each)) for each in found]) from None


def _refused(faults: list[tuple[str, str]]) -> ProblemError:
    field, detail = faults[0]
    problem = invalid(field, detail)
    problem.body["errors"] = [{"field": name, "detail": said} for name, said in faults]
    return problem


def _field(error: ErrorDetails) -> str:
    """`headers.X-Name`, `cvms[3]`; what a caller invented is cut."""
    name = ""
    for part in error["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name.removesuffix(".[key]")[:100]


def _said(error: ErrorDetails) -> str:
    """Our own words where there are some. Pydantic's never hold the input."""
    match error["type"]:
        case "extra_forbidden":
            return "there is no such field"
        case "missing":
            return "it must be given"
        case "value_error":
            return str(error["ctx"]["error"])
    return error["msg"]
