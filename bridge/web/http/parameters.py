"""Parameters of the routes: each declared once, with the bounds that the document shows and the parser applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(Generic[T]):
    """`parse` takes the query's values of this name, in order, and raises ProblemError 422."""

    name: str
    description: str
    where: Literal["query", "path", "header"] = "query"
    required: bool = False
    schema: Json = field(default_factory=lambda: TEXT)
    example: str | None = None
    parse: Callable[[list[str]], T]
    shared_as: str = ""
    """Its name among the document's parameters, if another one has the same `name`."""

    def read(self, query: QueryParams) -> T:
        """Raises ProblemError 422."""
        return self.parse(query.getlist(self.name))


def in_path(name: str, description: str, example: str, schema: Json = TEXT, *, shared_as: str = "") -> Parameter[str]:
    """Always required."""
    return Parameter(
        name=name,
        description=description,
        where="path",
        required=True,
        schema=schema,
        example=example,
        parse=last,
        shared_as=shared_as,
    )


def in_header(
    name: str, description: str, example: str | None = None, *, required: bool = False, shared_as: str = ""
) -> Parameter[str]:
    return Parameter(
        name=name,
        description=description,
        where="header",
        required=required,
        example=example,
        parse=last,
        shared_as=shared_as,
    )


def chosen(name: str, description: str, choices: tuple[T, ...]) -> Parameter[T | None]:
    """One of `choices`, which are texts; None if it is absent."""

    def parse(values: list[str]) -> T | None:
        for choice in choices:
            if values and values[-1] == choice:
                return choice
        if values:
            raise invalid(name, f"one of {', '.join(map(str, choices))}")
        return None

    return Parameter(name=name, description=description, schema={**TEXT, "enum": list(choices)}, parse=parse)


def _limit(values: list[str]) -> int:
    text = values[-1] if values else str(DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LIMIT and len(text) < 9):
        raise invalid("limit", f"a whole number from 1 to {MOST_LIMIT}")
    return int(text)


LIMIT = Parameter(
    name="limit",
    description="The largest number of items in a page",
    schema={"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT},
    parse=_limit,
)
AFTER = Parameter(name="after", description="`next` of the page before", parse=last)
