"""Query parameters as FastAPI with Pydantic 2 reads and refuses them: Pydantic itself is asked, FastAPI's part is the
location. What the simulator and the drop-in have in common; both answer as the route that they stand for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

Integer = TypeAdapter[int]

INTERVAL: Integer = TypeAdapter(Annotated[int, Field(ge=5, le=30)])
"""Seconds between two looks of the state route's stream."""

TIMEOUT: Integer = TypeAdapter(Annotated[int, Field(ge=10, le=600)])
"""Seconds after which the state route's stream ends."""

DEFAULT_INTERVAL, DEFAULT_TIMEOUT = 5, 300


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

    def integer(self, name: str, kind: Integer, default: int) -> int:
        """The parameter, `default` where it is absent or wrong; what is wrong is told by `check`."""
        text = self._params.get(name)
        if text is None:
            return default
        try:
            return kind.validate_python(text)
        except ValidationError as error:
            self._faults += located(error, ("query", name))
            return default

    def check(self) -> None:
        """Raises UnprocessableError with all faults, in the order of the reads."""
        if self._faults:
            raise UnprocessableError(self._faults)


def pace(params: QueryParams) -> tuple[int, int]:
    """The state route's `interval` and `timeout`, seconds. Raises UnprocessableError."""
    query = Query(params)
    found = (
        query.integer("interval", INTERVAL, DEFAULT_INTERVAL),
        query.integer("timeout", TIMEOUT, DEFAULT_TIMEOUT),
    )
    query.check()
    return found


def located(error: ValidationError, where: Iterable[str]) -> list[dict[str, Any]]:
    """Pydantic's faults below `where`, each with type, loc, msg, input and (some) ctx in this order."""
    faults = error.errors(include_url=False, include_context=True)
    return [{**fault, "loc": [*where, *fault["loc"]]} for fault in faults]
