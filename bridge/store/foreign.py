"""Reads values that another version of the bridge, or somebody else, may have written: each part on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from bridge.clock import rfc3339
from bridge.events import MAX_ID_LENGTH, usable_id

_UNDECODABLE = "\ufffd"
"""What a client puts in the place of bytes that are no UTF-8: such a name cannot be written back."""

TIME_DIGITS = 14
"""Of milliseconds since the Unix epoch, at most: times until the year 5138."""

_LENGTHS = frozenset(range(1, MAX_ID_LENGTH + 1))


def json_object(text: str | None) -> dict[str, Any]:
    """Empty for anything that is no JSON object."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def whole_number(value: object, most: int) -> int | None:
    """A number from 0 to `most`, without its fraction; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it is converted: JSON's integers may be larger than any float.
    return int(value) if 0 <= value <= most else None


def flag(value: object) -> bool | None:
    """True, false, or None also where it is absent, as in records of earlier versions. Raises ValueError."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def decimal(text: str | None, digits: int) -> int | None:
    """A number of at most so many decimal digits; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= digits else None


def stored_time(text: str | None) -> str | None:
    """Milliseconds since the Unix epoch, as RFC 3339; None for anything else."""
    ms = decimal(text, TIME_DIGITS)
    return None if ms is None else rfc3339(ms / 1000)


def names(members: Iterable[str]) -> tuple[str, ...]:
    """Those of `members` that are names: see `is_name`."""
    found = tuple(members)
    together, lengths = "".join(found), set(map(len, found))
    if together.isprintable() and _UNDECODABLE not in together and lengths <= _LENGTHS:
        return found  # as nearly always; there may be ten thousand
    return tuple(filter(is_name, found))


def is_name(value: object) -> bool:
    """Whether this can name a CVM, and can be written back as it was read."""
    return usable_id(value) is not None
