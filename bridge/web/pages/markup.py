"""Markup from texts and JSON schemas: every text is escaped, unless it is `Html`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]

ADDRESS = "{{address}}"
"""Placeholder for this server's address, which each request replaces."""

BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "{} or more characters",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} of them",
    "pattern": "like {}",
    "format": "{}",
}


class Html(str):
    """Finished markup; a plain `str` is text."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element; `class_` is `class`."""
    made = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{made}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(child, quote=False) for child in children))


def inline(text: str) -> Html:
    """A line of a description: text in backticks becomes code."""
    parts = re.split(r"`([^`]+)`", text)
    return join(*(tag("code", part) if place % 2 else part for place, part in enumerate(parts)))


def prose(text: str) -> Html:
    """A description: paragraphs."""
    return join(*(tag("p", inline(" ".join(part.split()))) for part in text.split("\n\n") if part.strip()))


def code(text: object) -> Html:
    return tag("code", str(text))


# JSON schemas as people read them


def kind(schema: Json) -> Html:
    """The type alone; a schema that has a name is a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return tag("a", name, href=f"#schema-{name}")
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return Html(" | ".join(code(json.dumps(value)) for value in schema["enum"]))
    if "anyOf" in schema:
        return Html(" | ".join(map(kind, schema["anyOf"])))
    if schema.get("type") == "array":
        return join("list of ", kind(schema["items"]))
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and "properties" not in schema:
        return join("object of ", kind(values))
    return join(schema.get("type", "anything"))


def bounds(schema: Json) -> Html:
    """A value's limits and its default; empty without either."""
    found = [join(words.format(schema[name])) for name, words in BOUNDS.items() if name in schema]
    if "items" in schema and (inner := bounds(schema["items"])):
        found.append(join("each ", inner))
    if schema.get("default") not in (None, "", [], {}):
        found.append(join("default ", code(json.dumps(schema["default"]))))
    return Html(", ".join(found))


def fields(schema: Json) -> Html:
    """A table of an object's fields; empty if it has none of its own."""
    if not schema.get("properties"):
        return Html("")
    required = schema.get("required", ())
    rows = [
        row(code(name), field, inline(field.get("description", "")), optional=name not in required)
        for name, field in schema["properties"].items()
    ]
    return table("Field", rows)


def row(name: Html, schema: Json, meaning: Html, *, optional: bool) -> Html:
    """A field's or a parameter's line."""
    mark = tag("span", "optional", class_="optional") if optional else Html("")
    limits = bounds(schema)
    return tag(
        "tr",
        tag("th", name, Html(" "), mark, scope="row"),
        tag("td", kind(schema), tag("span", limits, class_="limits") if limits else Html("")),
        tag("td", meaning),
    )


def table(first: str, rows: Iterable[Html]) -> Html:
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in (first, "Type", "Meaning"))))
    return tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll", tabindex="0")
