"""Request bodies: read up to a cap, and JSON objects checked field by field."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from bridge.web.http.problems import ProblemError, ProblemType, invalid

MAX_BODY = 64 * 1024
"""Bytes; a registration with a hundred long headers fits, and so does a Phala Cloud webhook."""

MOST_ERRORS = 20
"""Faults in one answer; the caller corrects these first."""

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request) -> bytes:
    """Raises ProblemError 413."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ProblemError(ProblemType.TOO_LARGE, f"a body has at most {MAX_BODY} bytes")
    return bytes(body)


async def read_model(request: Request, model: type[Model], *, optional: bool = False) -> Model:
    """The body as `model`. `optional`: an absent body counts as an empty object. Raises ProblemError 413, 415 or 422.

    The content type must be JSON: a page in a browser can send any other type to a bridge on the same machine without
    a CORS preflight.
    """
    body = await read_body(request)
    absent = optional and not body.strip()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not absent and media_type != "application/json" and not media_type.endswith("+json"):
        raise ProblemError(ProblemType.NO_JSON, "send Content-Type: application/json")
    try:
        given = {} if absent else json.loads(body)
    except (ValueError, RecursionError):
        raise invalid("body", "it is not JSON") from None
    if not isinstance(given, dict):
        raise invalid("body", "it must be a JSON object")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first, *more = _faults(error)
        raise invalid(*first, *more) from None


def _faults(error: ValidationError) -> list[tuple[str, str]]:
    """Fields and details. A function of its own: a validator's error knows the frames that called it, and a variable in
    one of them would keep it, and the whole body, until the garbage collector comes.
    """
    found = error.errors(include_url=False, include_input=False)[:MOST_ERRORS]
    return [(_field(each), _detail(each)) for each in found]


def _field(error: ErrorDetails) -> str:
    """`headers.X-Name`, `cvms[3]`; a name from the caller is cut to 100 characters."""
    name = ""
    for part in error["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name.removesuffix(".[key]")[:100]


def _detail(error: ErrorDetails) -> str:
    """A text of ours for the usual faults, else Pydantic's, which never holds the input."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    ours = {"extra_forbidden": "there is no such field", "missing": "it must be given"}
    return ours.get(error["type"], error["msg"])
