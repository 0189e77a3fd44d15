"""The parameters of the list route and the body of the batch route; see also `bridge.phala_queries`."""

from __future__ import annotations

from json import JSONDecodeError, loads
from typing import Any

from pydantic import BaseModel, ValidationError

from bridge.phala_queries import UnprocessableError, located, whole_number

PAGE, PAGE_SIZE = whole_number(1), whole_number(1, 100)


class BatchRequest(BaseModel):
    """The body of `POST /status/batch`."""

    vm_uuids: list[str]


def batch_request(body: bytes) -> BatchRequest:
    """Raises UnprocessableError, and UnicodeDecodeError, which FastAPI makes a 400."""
    if not body:
        raise UnprocessableError([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        return BatchRequest.model_validate(loads(body), from_attributes=True)
    except JSONDecodeError as error:
        raise UnprocessableError([_not_json(error)]) from error
    except ValidationError as error:
        raise UnprocessableError(located(error, ("body",))) from error


def _not_json(error: JSONDecodeError) -> dict[str, Any]:
    where = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
    return where | {"ctx": {"error": error.msg}}
