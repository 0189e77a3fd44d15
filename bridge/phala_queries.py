"""The query parameters of Phala Cloud's routes, read and refused as FastAPI with Pydantic 2 does it.

Pydantic checks the values, and this module adds FastAPI's location. The simulator and the drop-in answer as these
routes do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

Integer = TypeAdapter[int]

INTERVAL_BOUNDS = (5, 30)
"""Seconds between two reads by the state route's stream; both bounds are allowed."""

TIMEOUT_BOUNDS = (10, 600)
"""Seconds after which the state route's stream ends; both bounds are allowed."""

DEFAULT_INTERVAL, DEFAULT_TIMEOUT = 5, 300


def whole_number(least: int, most: int | None = None) -> Integer:
    """An integer of at least `least` and, unless None, at most `most`."""
    return TypeAdapter(Annotated[int, Field(ge=least, le=most)])


INTERVAL, TIMEOUT = whole_number(*INTERVAL_BOUNDS), whole_number(*TIMEOUT_BOUNDS)


class UnprocessableError(Exception):
    """the request is not valid"""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__(f"{len(detail)} errors")
        self.detail = detail


class Query:
    """Reads query parameters one by one and collects their errors. As in FastAPI, the last of a repeated parameter
    counts, and an empty value is a value.
    """

    def __init__(self, params: QueryParams) -> None:
        self._params = params
        self._errors: list[dict[str, Any]] = []

    def integer(self, name: str, kind: Integer, default: int) -> int:
        """The parameter; `default` if it is absent or wrong. `check` reports a wrong one."""
        text = self._params.get(name)
        if text is None:
            return default
        try:
            return kind.validate_python(text)
        except ValidationError as error:
            self._errors += located(error, ("query", name))
            return default

    def check(self) -> None:
        """Raises UnprocessableError with all errors, in the order of the reads."""
        if self._errors:
            raise UnprocessableError(self._errors)


def pace(params: QueryParams) -> tuple[int, int]:
    """The state route's `interval` and `timeout`, seconds. Raises UnprocessableError."""
    query = Query(params)
    found = (query.integer("interval", INTERVAL, DEFAULT_INTERVAL), query.integer("timeout", TIMEOUT, DEFAULT_TIMEOUT))
    query.check()
    return found


def located(error: ValidationError, where: Iterable[str]) -> list[dict[str, Any]]:
    """Pydantic's errors, located below `where`; each has type, loc, msg, input and (some) ctx, in this order."""
    errors = error.errors(include_url=False, include_context=True)
    return [{**each, "loc": [*where, *each["loc"]]} for each in errors]
