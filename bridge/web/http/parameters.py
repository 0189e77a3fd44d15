"""Parameters of the routes: each declared once, with the bounds that the document shows and the parser applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from starlette.datastructures import QueryParams

from bridge.web.http.problems import invalid

T = TypeVar("T")
Json = dict[str, Any]

TEXT: Json = {"type": "string"}

MOST_LIMIT = 1000
DEFAULT_LIMIT = 100


def last(values: list[str]) -> str:
    """The last of a repeated parameter; empty if it is absent."""
    return values[-1] if values else ""


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """`parse` takes the query's values of this name, in order, and raises ProblemError 422."""

    name: str
    description: str
    parse: Callable[[list[str]], T]
    schema: Json = field(default_factory=lambda: TEXT)
    _: KW_ONLY
    where: Literal["query", "path", "header"] = "query"
    required: bool = False
    example: str | None = None
    is_reference: bool = False
    shared_as: str = ""
    """Its name among the document's parameters, if another one has the same `name`."""

    def read(self, query: QueryParams) -> T:
        """Raises ProblemError 422."""
        return self.parse(query.getlist(self.name))


def in_path(name: str, description: str, example: str, schema: Json = TEXT, **more: Any) -> Parameter[str]:
    return Parameter(name, description, last, schema, where="path", required=True, example=example, **more)


def in_header(name: str, description: str, **more: Any) -> Parameter[str]:
    return Parameter(name, description, last, where="header", **more)


def chosen(name: str, description: str, choices: tuple[T, ...]) -> Parameter[T | None]:
    """One of `choices`, which are texts; None if it is absent."""

    def parse(values: list[str]) -> T | None:
        for choice in choices:
            if values and values[-1] == choice:
                return choice
        if values:
            raise invalid(name, f"one of {', '.join(map(str, choices))}")
        return None

    return Parameter(name, description, parse, {**TEXT, "enum": list(choices)})


def _limit(values: list[str]) -> int:
    text = values[-1] if values else str(DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LIMIT and len(text) < 9):
        raise invalid("limit", f"a whole number from 1 to {MOST_LIMIT}")
    return int(text)


LIMIT = Parameter(
    "limit",
    "The largest number of items in a page",
    _limit,
    {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT},
)
AFTER = Parameter("after", "`next` of the page before", last)
