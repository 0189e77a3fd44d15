"""What goes wrong between a client and the bridge, one class for each thing that a caller does about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.printable import printable


class BridgeError(Exception):
    """the bridge cannot be used"""


class UnreachableError(BridgeError):
    """There was no answer, or none of a bridge. Another try may help."""


class AnswerError(BridgeError):
    """The bridge answered with an error. `type` is the problem's stable type (`urn:bridge:problem:…`) or empty.

    `fields`: (name, what it must be) of each wrong field. `problem`: all its members. `retry_after`: seconds, None
    where the answer has none.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.problem = status, problem
        self.type = text_of(problem.get("type"))
        self.title, self.detail = text_of(problem.get("title")), text_of(problem.get("detail"))
        faults = problem.get("errors")
        self.fields = [
            (text_of(each.get("field")), text_of(each.get("detail")))
            for each in (faults if isinstance(faults, list) else ())
            if isinstance(each, dict)
        ]
        self.retry_after = retry_after


class UnavailableError(AnswerError):
    """A passing error (408, 425, 429 and 5xx, or told in a stream, with the status 200): ask again later."""


class RefusedError(AnswerError):
    """The same request will not be answered otherwise."""


class UnauthorizedError(RefusedError):
    """401: the token is missing or not valid."""


class ForbiddenError(RefusedError):
    """403: the token's scope or its CVMs do not allow this."""


class NotFoundError(RefusedError):
    """404: there is no such CVM, endpoint, delivery or route."""


class InvalidError(RefusedError):
    """422: the request is not valid; `fields` names each wrong field."""


BY_STATUS: Mapping[int, type[RefusedError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    422: InvalidError,
}


def text_of(value: object) -> str:
    """Harmless on a terminal; the empty text for anything but a text."""
    return printable(value) if isinstance(value, str) else ""
