"""`Idempotency-Key`: what a request makes has an id that follows from its key, so that a repetition finds it.

Nothing else is kept: the endpoint's record has a mark of the request, from which neither key, body nor secret can be
told.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass

from pydantic import BaseModel

from bridge.web.http.operations import Call
from bridge.web.http.parameters import in_header
from bridge.web.http.problems import invalid

NAME = "Idempotency-Key"

MAX_KEY = 255

IDEMPOTENCY_KEY = in_header(
    NAME,
    "A repetition with the same key finds what the first request made",
    example="8e03978e-40d5-43dd-bc93-6894a57f9324",
)

LATER = {"signatures": ["v1"]}
"""Fields that are newer than some marks, with their defaults: with these, a repetition fits an old mark too."""

_KEY = re.compile(f"[!-~](?:[ -~]{{0,{MAX_KEY - 2}}}[!-~])?")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """One caller's key: another token with the same key makes something else."""

    key: bytes
    scope: str

    def id_part(self, length: int) -> str:
        """Hexadecimal digits of the id of what the request makes."""
        return self._digest(self.scope)[:length]

    def mark(self, body: BaseModel, secret: str) -> str:
        """What the record keeps of the request."""
        return f"{self._digest(_text(body))}.{self._digest(secret)}"

    def is_of(self, mark: str, body: BaseModel) -> bool:
        """Whether the record was made by such a request."""
        return hmac.compare_digest(mark.partition(".")[0], self._digest(_text(body)))

    def made_with(self, mark: str, secret: str) -> bool:
        """Whether it was made with this secret."""
        return hmac.compare_digest(mark.partition(".")[2], self._digest(secret))

    def _digest(self, text: str) -> str:
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def idempotency_key(call: Call) -> IdempotencyKey | None:
    """None without the header. Raises ProblemError 422."""
    given = call.request.headers.get(NAME)
    if given is None:
        return None
    if not _KEY.fullmatch(given):
        raise invalid(NAME, f"1 to {MAX_KEY} printable ASCII characters")
    return IdempotencyKey(given.encode(), f"{call.request.url.path} {call.principal.name}")


def _text(body: BaseModel) -> str:
    """The same for bodies that mean the same: the order of members and absent defaults make no difference."""
    dumped = body.model_dump(mode="json")
    for name, default in LATER.items():
        if dumped.get(name) == default:
            del dumped[name]
    return json.dumps(dumped, sort_keys=True)
