"""Trace contexts (W3C Trace Context): one id that leads from a caller, or from what upstream showed, through the log to
each webhook attempt.

Identifiers come from an `rng` of the caller's. What others send is read within bounds, and ignored where it is
malformed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

MOST_STATE = 512
"""Characters of a `tracestate`: as many as everybody must pass on. A longer one is dropped, and the trace goes on."""

MOST_VENDORS = 32

SAMPLED = 0x01
_KNOWN_FLAGS = 0x03
"""Sampled, and that the trace id is random; others mean nothing in the version that is sent on."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VENDOR = re.compile(
    r"([a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: the span `span_id` of the trace `trace_id`, both in hexadecimal."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED
    state: str = ""
    """Other vendors' `tracestate`, as it came."""

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def fields(self) -> Mapping[str, str]:
        """Its members in an envelope, and its headers in a request."""
        given = {"traceparent": self.traceparent}
        return {**given, "tracestate": self.state} if self.state else given

    @property
    def ids(self) -> Mapping[str, str]:
        """Its fields in a log line."""
        return {"trace_id": self.trace_id, "span_id": self.span_id}

    def child(self, rng: random.Random) -> Trace:
        """A span within this one."""
        return replace(self, span_id=_span_id(rng))


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request or attempt that the present task serves: log lines have its ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of work that has ended, `trace.span_id` within `parent_id` ("": it has none). Times are Unix seconds;
    `fault` tells why it failed; `about` has texts, numbers and None for what is not known.
    """

    name: str
    trace: Trace
    parent_id: str = ""
    began: float
    ended: float
    about: Mapping[str, object]
    fault: str = ""


_exports: list[Callable[[Span], None]] = []
"""At most one: `export_to` of the process's role writes it."""


@contextmanager
def export_to(export: Callable[[Span], None]) -> Iterator[None]:
    """Within it, `finished` passes spans on; `export` must not block."""
    _exports.append(export)
    try:
        yield
    finally:
        _exports.remove(export)


def are_exported() -> bool:
    """Whether anybody wants spans: else none need be made."""
    return bool(_exports)


def finished(span: Span) -> None:
    for export in _exports:
        export(span)


def begin(rng: random.Random) -> Trace:
    """A trace of its own. It counts as sampled, because log lines tell it, and a receiver may do the same."""
    return Trace(f"{rng.getrandbits(128) or 1:032x}", _span_id(rng))


def _span_id(rng: random.Random) -> str:
    return f"{rng.getrandbits(64) or 1:016x}"  # zeros are no id


def read(traceparent: object, tracestate: object = "") -> Trace | None:
    """What these two fields tell; None if the first is malformed. A malformed `tracestate` is left out."""
    found = _PARENT.fullmatch(traceparent) if isinstance(traceparent, str) and len(traceparent) <= MOST_STATE else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Trace(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _state(tracestate))


def _state(given: object) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= MOST_STATE:
        return ""
    members = [each for each in (part.strip(" \t") for part in given.split(",")) if each]
    keys = {found[1] for found in map(_VENDOR.fullmatch, members) if found}
    return ",".join(members) if len(keys) == len(members) <= MOST_VENDORS else ""
