"""Every class of trouble that upstream can give; httpx's own exceptions end in `client.py`.

`reason` is the word that `watch.stale` carries. Nothing here ever holds the API key.
"""

from __future__ import annotations


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
