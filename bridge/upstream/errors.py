"""The errors that upstream can cause, and the one table of what each of them leads to.

`client.py` translates httpx's exceptions into these. No error ever holds the API key.
"""

from __future__ import annotations

import json
from enum import Enum, auto
from typing import NamedTuple


class UpstreamError(Exception):
    """upstream did not answer as asked"""

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

    @property
    def rule(self) -> Rule:
        """What this error leads to."""
        return RULES[type(self)]

    @property
    def reason(self) -> str:
        """The `reason` of `watch.stale` (docs/contract.md#the-event)."""
        return self.rule.reason

    @property
    def is_definite(self) -> bool:
        """Whether upstream answered about the reference itself; otherwise it is asked again soon."""
        return self.rule.definite and self.status is not None and 400 <= self.status < 500


class UnreachableError(UpstreamError):
    """upstream cannot be reached, or closed the connection"""


class NotSentError(UnreachableError):
    """no connection to upstream could be made"""


class ServerError(UnreachableError):
    """upstream failed (5xx)"""


class UnauthorizedError(UpstreamError):
    """upstream refuses the API key"""


class ForbiddenError(UnauthorizedError):
    """upstream refuses the API key for this CVM (403)"""


class NotFoundError(UpstreamError):
    """upstream has no such CVM"""


class ForeignNotFoundError(NotFoundError):
    """a 404 without Phala Cloud's words: a proxy answered, or the prefix is wrong"""


class RateLimitedError(UpstreamError):
    """upstream limits the rate of requests or the number of streams"""


class ConflictError(UpstreamError):
    """the reference is ambiguous at upstream, or the CVM is busy"""


class RequestRefusedError(UpstreamError):
    """upstream refuses the request"""


class UnparsableError(UpstreamError):
    """upstream's answer is not a state"""


class BatchAbsentError(UpstreamError):
    """upstream has no batch route for this account"""


class AccountEffect(Enum):
    """What an error changes for the whole account (`LeaderContext.apply`)."""

    NOTHING = auto()
    ACCEPTED = auto()
    """The key works: an account that was blocked is not any more."""
    SLOW_DOWN = auto()
    """A plain request: pause all of them, then half the rate. A stream: allow fewer streams."""
    BLOCK = auto()
    SUSPECT = auto()
    """Blocks once three watched CVMs in a row were forbidden."""


class CvmEffect(Enum):
    """What an error changes for the CVM that was asked for."""

    ABSENT = auto()
    """It may be gone (`absence.py`)."""
    BACK_OFF = auto()
    WAIT = auto()
    """No backoff of its own: what the account waits is enough."""


class Rule(NamedTuple):
    """One row of the table. `definite`: the error is an answer about the reference, not about the account."""

    reason: str
    account: AccountEffect
    cvm: CvmEffect
    definite: bool


RULES: dict[type[UpstreamError], Rule] = {
    UpstreamError: Rule("unreachable", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=False),
    UnreachableError: Rule("unreachable", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=False),
    NotSentError: Rule("unreachable", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=False),
    ServerError: Rule("unreachable", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=False),
    UnauthorizedError: Rule("unauthorized", AccountEffect.BLOCK, CvmEffect.BACK_OFF, definite=False),
    ForbiddenError: Rule("unauthorized", AccountEffect.SUSPECT, CvmEffect.BACK_OFF, definite=False),
    NotFoundError: Rule("not_found", AccountEffect.ACCEPTED, CvmEffect.ABSENT, definite=True),
    ForeignNotFoundError: Rule("not_found", AccountEffect.NOTHING, CvmEffect.ABSENT, definite=False),
    RateLimitedError: Rule("rate_limited", AccountEffect.SLOW_DOWN, CvmEffect.WAIT, definite=False),
    ConflictError: Rule("conflict", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=True),
    RequestRefusedError: Rule("refused", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=True),
    UnparsableError: Rule("unparsable", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=True),
    BatchAbsentError: Rule("no_batch", AccountEffect.NOTHING, CvmEffect.BACK_OFF, definite=False),
}


def error_for(status: int, body: bytes, content_type: str, retry_after: float | None) -> UpstreamError:
    """The error for a status that no request of ours expects."""
    kinds: dict[int, type[UpstreamError]] = {
        401: UnauthorizedError,
        403: ForbiddenError,
        404: NotFoundError if _is_phalas(body) else ForeignNotFoundError,
        408: UnreachableError,
        409: ConflictError,
        428: ConflictError,
        429: RateLimitedError,
    }
    kind = kinds.get(status, ServerError if status >= 500 else RequestRefusedError)
    message = f"upstream answered {status}"
    return kind(message, status=status, body=body, content_type=content_type, retry_after=retry_after)


def _is_phalas(body: bytes) -> bool:
    """Whether a 404 is an answer about the CVM: an `ERR-…` code, or a `detail` that is not the web framework's own."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(fields, dict):
        return False
    code, detail = fields.get("error_code"), fields.get("detail")
    return (isinstance(code, str) and code.startswith("ERR-")) or _tells_something(detail)


def _tells_something(detail: object) -> bool:
    if isinstance(detail, str):
        return detail.strip(" .").lower() not in ("", "not found")
    return isinstance(detail, list | dict) and bool(detail)
