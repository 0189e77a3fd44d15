"""Markup from texts: every text is escaped, unless it is `Html`."""

from __future__ import annotations

import re
from html import escape

ADDRESS = "{{address}}"
"""Placeholder for this server's address, which each request replaces."""


class Html(str):
    """Finished markup; a plain `str` is text."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | None) -> Html:
    """An element. `class_` is `class`; an attribute that is None is left out."""
    made = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
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
