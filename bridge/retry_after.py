"""The `Retry-After` header in both forms, whole seconds and HTTP date (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_retry_after(text: str | None, now: float, *, longest: float) -> float | None:
    """Seconds to wait from `now` (Unix time); a longer wait than `longest` counts as `longest`.

    None for a missing header, any other form, and a date in the past.
    """
    text = (text or "").strip()
    try:
        seconds = float(text) if re.fullmatch(r"\d+", text, re.ASCII) else _unix_time(text) - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(seconds, longest) if seconds >= 0 and min(seconds, longest) < math.inf else None


def _unix_time(text: str) -> float:
    """Takes the forms that begin with a weekday, such as `Tue, 24 Nov 2026 16:00:00 GMT`; without a zone it is UTC.

    Raises ValueError for others.
    """
    if not re.match(r"[A-Za-z]{3,9},? ", text):
        raise ValueError("not an HTTP date")
    moment = parsedate_to_datetime(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
