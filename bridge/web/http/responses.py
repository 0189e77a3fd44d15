"""What the front end answers: models that are also the document's schemas, and the responses made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bridge.events import dumps

NO_STORE = {"Cache-Control": "no-store"}


class Verbatim(str):
    """JSON text that goes into an answer character for character, such as a state as upstream wrote it."""

    __slots__ = ()


class Shape(BaseModel):
    """Something that the bridge sends. More fields may be added. A field that is not set is absent from the JSON.

    Values from Redis go through `model_construct`: an unexpected one is shown, and does not fail the request.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, populate_by_name=True, arbitrary_types_allowed=True)

    def json_text(self) -> str:
        """Its JSON, fields in the order of their declaration."""
        plain = self.model_dump(by_alias=True, exclude_unset=True, warnings=False)
        verbatim = {name: text for name, text in plain.items() if isinstance(text, Verbatim)}
        if not verbatim:
            return dumps(plain)
        return f"{{{','.join(f'{dumps(name)}:{verbatim.get(name) or dumps(value)}' for name, value in plain.items())}}}"


def described(description: str, *examples: object, **more: Any) -> Any:
    """A field with its description in the document."""
    return Field(description=description, examples=list(examples) or None, **more)


def time_field(description: str, **more: Any) -> Any:
    """A field that is an RFC 3339 time, or null where its type allows null."""
    return Field(description=f"{description} RFC 3339.", json_schema_extra={"format": "date-time"}, **more)


def json_response(body: Shape | str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model, or finished JSON text."""
    text = body if isinstance(body, str) else body.json_text()
    return Response(text, status, {**NO_STORE, **(headers or {})}, "application/json")


def page_response(
    items: Iterable[Shape | str],
    following: str | None,
    headers: Mapping[str, str] | None = None,
    *,
    more: Mapping[str, Shape | None] | None = None,
) -> Response:
    """One page of a list; `following` is `after` of the next page, None on the last; `more`: what
    else is told of all pages, by its name."""
    texts = [item if isinstance(item, str) else item.json_text() for item in items]
    told = "".join(f',"{name}":{shape.json_text()}' for name, shape in (more or {}).items() if shape)
    return json_response(f'{{"items":[{",".join(texts)}],"next":{dumps(following)}{told}}}', headers=headers)


def empty_response() -> Response:
    return Response(None, 204, NO_STORE)
