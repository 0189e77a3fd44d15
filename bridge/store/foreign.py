"""Reads values that another version of the bridge, or somebody else, may have written: each part on its own."""

from __future__ import annotations

import json
import math
from typing import Any

from bridge.events import usable_id

_UNDECODABLE = "\ufffd"
"""What a client puts in the place of bytes that are no UTF-8: such a name cannot be written back."""


def json_object(text: str | None) -> dict[str, Any]:
    """Empty for anything that is no JSON object."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def whole_number(value: object, most: int) -> int | None:
    """A number from 0 to `most`, without its fraction; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= most else None


def is_name(value: object) -> bool:
    """Whether this can name a CVM, and can be written back as it was read."""
    return usable_id(value) is not None and _UNDECODABLE not in str(value)
