"""Every class of trouble that upstream can give; httpx's own exceptions end in `client.py`.

`reason` is the word that `watch.stale` carries. Nothing here ever holds the API key.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; an answer that asks for more, for less than nothing or in no known form is not believed."""


class UpstreamError(Exception):
    """upstream did not give what was asked"""

    reason = "unreachable"

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        body: bytes = b"",
        content_type: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.status = status
        self.body = body
        self.content_type = content_type
        self.retry_after = retry_after


class UnreachableError(UpstreamError):
    """upstream cannot be reached, or hung up"""


class ServerError(UnreachableError):
    """upstream failed (5xx)"""


class UnauthorizedError(UpstreamError):
    """upstream refuses the API key"""

    reason = "unauthorized"


class NotFoundError(UpstreamError):
    """upstream knows no such CVM"""

    reason = "not_found"


class RateLimitedError(UpstreamError):
    """upstream says that this is too much"""

    reason = "rate_limited"


class ConflictError(UpstreamError):
    """upstream cannot tell which CVM is meant, or is busy with it"""

    reason = "conflict"


class RefusedError(UpstreamError):
    """upstream refuses the request"""

    reason = "refused"


class UnparsableError(UpstreamError):
    """upstream's answer cannot be a state"""

    reason = "unparsable"


class BatchAbsentError(UpstreamError):
    """upstream has no batch route for us"""

    reason = "no_batch"


def error_for(status: int, body: bytes, content_type: str, retry_after: float | None) -> UpstreamError:
    """The one table from a status to a class of trouble."""
    kinds: dict[int, type[UpstreamError]] = {
        401: UnauthorizedError,
        403: UnauthorizedError,
        404: NotFoundError,
        408: UnreachableError,
        409: ConflictError,
        428: ConflictError,
        429: RateLimitedError,
    }
    kind = kinds.get(status, ServerError if status >= 500 else RefusedError)
    message = f"upstream answered {status}"
    return kind(message, status=status, body=body, content_type=content_type, retry_after=retry_after)


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Seconds to wait, from either form of the header (RFC 9110 section 10.2.3); None: not to be believed."""
    if text is None:
        return None
    try:
        seconds = float(int(text)) if text.strip().isdigit() else _moment(text) - now
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if 0 <= seconds <= LONGEST_RETRY_AFTER else None


def _moment(text: str) -> float:
    """An HTTP date as Unix time; one without a zone is UTC, not this machine's."""
    moment = parsedate_to_datetime(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
