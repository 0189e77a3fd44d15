"""What the list and the batch route take, and how they refuse the rest; see `bridge.phala_queries`."""

from __future__ import annotations

from json import JSONDecodeError, loads
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from bridge.phala_queries import Integer, UnprocessableError, located

PAGE: Integer = TypeAdapter(Annotated[int, Field(ge=1)])
PAGE_SIZE: Integer = TypeAdapter(Annotated[int, Field(ge=1, le=100)])


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
