"""422 bodies, as FastAPI with Pydantic 2 writes them: Pydantic itself is asked, FastAPI's part is the
location.
"""

from __future__ import annotations

from collections.abc import Iterable
from json import JSONDecodeError, loads
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

Interval = Annotated[int, Field(ge=5, le=30)]
Timeout = Annotated[int, Field(ge=10, le=600)]
Page = Annotated[int, Field(ge=1)]
PageSize = Annotated[int, Field(ge=1, le=100)]


class BatchRequest(BaseModel):
    """The body of `POST /status/batch`."""

    vm_uuids: list[str]


class UnprocessableError(Exception):
    """the request is not valid"""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__(f"{len(detail)} faults")
        self.detail = detail


class Query:
    """Reads query parameters one by one and collects their faults, as FastAPI does: the last of a repeated
    one counts, and an empty value is a value.
    """

    def __init__(self, params: QueryParams) -> None:
        self._params = params
        self._faults: list[dict[str, Any]] = []

    def integer(self, name: str, kind: Any, default: int) -> int:
        """The parameter, `default` where it is absent or wrong; what is wrong is told by `check`."""
        text = self._params.get(name)
        if text is None:
            return default
        try:
            return int(TypeAdapter(kind).validate_python(text))
        except ValidationError as error:
            self._faults += located(error, ("query", name))
            return default

    def check(self) -> None:
        """Raises UnprocessableError with all faults, in the order of the reads."""
        if self._faults:
            raise UnprocessableError(self._faults)


def located(error: ValidationError, where: Iterable[str]) -> list[dict[str, Any]]:
    """Pydantic's faults below `where`, each with type, loc, msg, input and (some) ctx in this order."""
    faults = error.errors(include_url=False, include_context=True)
    return [{**fault, "loc": [*where, *fault["loc"]]} for fault in faults]


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
