"""The event: one CloudEvents envelope everywhere, and the state it carries (`docs/contract.md#the-event`).

A state is relayed as upstream wrote it, so it is kept as text beside its parsed form: encoding it again would turn
`1.10` into `1.1`, and consumers may compare states byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn

from bridge.tracing import Trace, read

TRANSITION = "cvm.transition"
STATE = "cvm.state"
READINESS = "cvm.readiness"
STALE = "watch.stale"
FRESH = "watch.fresh"
DROPPED = "watch.dropped"
ENDPOINT_FAILING = "endpoint.failing"
ENDPOINT_DISABLED = "endpoint.disabled"
ENDPOINT_RECOVERED = "endpoint.recovered"
DELIVERY_GIVEN_UP = "delivery.given_up"
SNAPSHOT = "cvm.snapshot"
RESET = "log.reset"

NOTICES = (ENDPOINT_FAILING, ENDPOINT_DISABLED, ENDPOINT_RECOVERED, DELIVERY_GIVEN_UP)
"""The types that are about a webhook endpoint and no CVM. Only a filter that names them lets them through."""

LOG_TYPES = (TRANSITION, STATE, READINESS, STALE, FRESH, DROPPED, *NOTICES)
"""The types that are written to the log, besides `phala.<event>`; `cvm.snapshot` and `log.reset` exist in SSE streams
only."""

PHALA = "phala"
"""The SSE event of all types `phala.<event>`, which are an open set: Phala Cloud's own webhooks."""

ANY_PHALA = f"{PHALA}.*"
"""In filters: all of them."""

PHALA_TYPE = r"phala\.(\*|[a-z0-9_-]{1,40}(\.[a-z0-9_-]{1,40}){0,4})"
"""Such a type in filters, as a regular expression; written to the log, it has no `*`."""

NO_LEADER, NOT_SEEN = "no_leader", "not_seen_yet"
"""Why a state cannot be vouched for, beside the reasons of `watch.stale`."""

SSE_EVENTS = {
    TRANSITION: "transition",
    STATE: "state",
    READINESS: "readiness",
    STALE: "stale",
    FRESH: "fresh",
    DROPPED: "dropped",
    ENDPOINT_FAILING: "failing",
    ENDPOINT_DISABLED: "disabled",
    ENDPOINT_RECOVERED: "recovered",
    DELIVERY_GIVEN_UP: "given_up",
    SNAPSHOT: "snapshot",
    RESET: "reset",
}
"""The `event:` line of each type in an SSE stream."""

POSITION = "position"
"""The SSE event that has no type, because it is only a cursor: a client takes its `id:` and no news."""

DELETED = "deleted"
RUNNING = "running"

VOLATILE = frozenset({"uptime"})
"""Fields whose changes are of no interest: a change of these alone is no event."""

MAX_STATE_BYTES = 1 << 20
"""A real state is under 2 kB; one megabyte leaves room for `events` lists and limits the size of a log entry."""

MAX_ID_LENGTH = 256
"""Canonical ids are UUIDs (36 characters). They become Redis keys and channels, so their length is limited."""

MAX_DEPTH = 64
"""Levels of nesting; a real state has 3. JSON parsers have limits too, and an envelope that a consumer cannot parse
would be a hole in its log."""

SEQUENCE_DIGITS = 16
"""A thousand events a second need 300 000 years to fill them."""

ObservedBy = Literal["stream", "poll"]


class UnparsableStateError(ValueError):
    """upstream sent something that cannot be a state"""


_PHALA_TYPE = re.compile(PHALA_TYPE)


def phala_type(event: object) -> str | None:
    """The type of Phala Cloud's `event` in the log; None for what cannot be one."""
    kind = f"{PHALA}.{event}"
    return kind if isinstance(event, str) and kind != ANY_PHALA and _PHALA_TYPE.fullmatch(kind) else None


def is_log_type(name: str) -> bool:
    """Whether filters take it."""
    return name in LOG_TYPES or _PHALA_TYPE.fullmatch(name) is not None


def is_phala(kind: str) -> bool:
    """Whether it is the type of one of Phala Cloud's own webhooks."""
    return kind.startswith(f"{PHALA}.")


def names_of(kind: str) -> tuple[str, ...]:
    """The names under which filters find events of this type."""
    return (kind, ANY_PHALA) if is_phala(kind) else (kind,)


@lru_cache(maxsize=4096)  # of a herd's replays each asks for every event
def lets_through(kind: str, types: frozenset[str] | tuple[str, ...] | None) -> bool:
    """Whether a filter for these types does; without any, for all types but notices."""
    return any(name in types for name in names_of(kind)) if types else kind not in NOTICES


def sse_event(kind: str) -> str:
    """The `event:` line of a type in an SSE stream."""
    return PHALA if is_phala(kind) else SSE_EVENTS.get(kind, kind.rpartition(".")[2])


def dumps(value: object) -> str:
    """Compact ASCII JSON, without raw line ends, U+2028 and lone surrogates."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _no_constant(name: str) -> NoReturn:
    raise UnparsableStateError(f"{name} is not JSON")


def _integer(digits: str) -> int | str:
    # int() of more than 4300 digits raises; such a number is legal JSON and only compared here.
    return int(digits) if len(digits) < 1000 else digits


# Raw line ends are only white space in valid JSON (inside strings they are escaped), and the three separators that
# `str.splitlines` also breaks at (published SSE clients use it) are the same characters when escaped.
_ONE_LINE = str.maketrans({"\r": " ", "\n": " ", "\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@dataclass(frozen=True, slots=True)
class State:
    """One state of a CVM: `raw` is its JSON as upstream wrote it, on one line, and `fields` the same parsed."""

    raw: str
    fields: Mapping[str, Any]

    @property
    def status(self) -> str:
        return str(self.fields["status"])

    @property
    def name(self) -> str | None:
        name = self.fields.get("name")
        return name if isinstance(name, str) else None

    @property
    def app_id(self) -> str | None:
        """Its app's id, if the state has a usable one."""
        return usable_id(self.fields.get("app_id"))

    @property
    def cvm_id(self) -> str | None:
        """The canonical id, if the state has a usable one."""
        return usable_id(self.fields.get("id"))

    def same_as(self, other: State) -> bool:
        """Whether nothing but volatile fields differs."""
        return self.raw == other.raw or _comparable(self.fields) == _comparable(other.fields)


def _comparable(fields: Mapping[str, Any]) -> str:
    # As text, because to Python 0 and false are equal, and 1 and true.
    return json.dumps({key: value for key, value in fields.items() if key not in VOLATILE}, sort_keys=True)


def usable_id(value: object) -> str | None:
    """`value` if it can name a CVM in keys, channels and URLs: printable, not empty, of limited length.

    A text with U+FFFD was made of bytes that are no UTF-8, and cannot be written back as it was.
    """
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable() and "\ufffd" not in value:
        return value
    return None


def parse_state(text: str) -> State:
    """Reads one state. Raises UnparsableStateError with a short reason, which does not quote the data."""
    if len(text) > MAX_STATE_BYTES:
        raise UnparsableStateError(f"a state of {len(text)} characters (at most {MAX_STATE_BYTES})")
    raw, fields = parse_object(text)
    if not isinstance(fields.get("status"), str):
        raise UnparsableStateError("no string status")
    return State(raw, fields)


def parse_object(text: str) -> tuple[str, dict[str, Any]]:
    """A JSON object on one line as it is written, and parsed. Raises UnparsableStateError as `parse_state` does."""
    text = text.removeprefix("\ufeff").strip(" \t\r\n")
    try:
        fields = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
    except UnparsableStateError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnparsableStateError("not JSON") from error
    if not isinstance(fields, dict):
        raise UnparsableStateError("not a JSON object")
    if _deeper_than(fields, MAX_DEPTH):
        raise UnparsableStateError(f"nested deeper than {MAX_DEPTH} levels")
    return text.translate(_ONE_LINE), fields


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        nested = [item for item in level if isinstance(item, dict | list)]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return any(isinstance(item, dict | list) for item in level)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no number yet; `data` is the JSON of the envelope's `data`.

    A notice has an `endpoint_id`, and a `cvm_id` of "". `trace`: in which it was observed.
    """

    type: str
    cvm_id: str
    time: str
    data: str
    endpoint_id: str = ""
    trace: Trace | None = None

    def envelope(self, source: str, sequence: int) -> str:
        """The envelope's JSON without `id`, which the log assigns."""
        at = {"subject": self.endpoint_id or self.cvm_id, "time": self.time}
        return envelope(source, self.type, self.data, **at, sequence=sequence, trace=self.trace)


def envelope(
    source: str,
    kind: str,
    data: str,
    *,
    event_id: str | None = None,
    subject: str | None = None,
    time: str | None = None,
    sequence: int | None = None,
    trace: Trace | None = None,
) -> str:
    """The JSON of one envelope; `data` is JSON. A member that is None is left out."""
    members = {
        "id": event_id,
        "specversion": "1.0",
        "source": source,
        "type": kind,
        "subject": subject,
        "time": time,
        "datacontenttype": "application/json",
        "sequence": None if sequence is None else sequence_text(sequence),
        **(trace.fields if trace else {}),
    }
    return f'{dumps({name: value for name, value in members.items() if value is not None})[:-1]},"data":{data}}}'


def cvm_data(
    cvm_id: str,
    name: str | None,
    change: tuple[str | None, str | None],
    observed_by: ObservedBy,
    raw_state: str | None,
    *,
    app_id: str | None = None,
    ready: bool | None = None,
    operation: Mapping[str, str | None] | None = None,
) -> str:
    """The `data` of a `cvm.transition` or `cvm.state`; `change` is (from, to)."""
    head = {"cvm_id": cvm_id, "name": name, "app_id": app_id, "from": change[0], "to": change[1]}
    rest = {"observed_by": observed_by, "ready": ready, "operation": operation}
    return f'{dumps(head | rest)[:-1]},"state":{raw_state or "null"}}}'


def readiness_data(
    cvm_id: str,
    name: str | None,
    change: tuple[bool | None, bool | None],
    reason: str,
    *,
    app_id: str | None,
    operation: Mapping[str, str | None] | None,
) -> str:
    """The `data` of a `cvm.readiness`; `change` is (`was_ready`, `ready`)."""
    named = {"cvm_id": cvm_id, "name": name, "app_id": app_id}
    return dumps(named | {"ready": change[1], "was_ready": change[0], "operation": operation, "reason": reason})


def phala_data(cvm_id: str | None, name: str | None, app_id: str | None, notice: str) -> str:
    """The `data` of a `phala.*` event; `notice` is Phala Cloud's envelope, as it came."""
    named = {"cvm_id": cvm_id, "name": name, "app_id": app_id}
    return f'{dumps(named)[:-1]},"notice":{notice}}}'


def watch_data(cvm_id: str, name: str | None, reason: str | None = None, *, app_id: str | None = None) -> str:
    """The `data` of a `watch.*` event; `reason` is for `watch.stale` only."""
    data: dict[str, str | None] = {"cvm_id": cvm_id, "name": name, "app_id": app_id}
    if reason is not None:
        data["reason"] = reason
    return dumps(data)


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the log: `json` is the whole envelope, `id` included.

    `app_id` and `name` are those of its CVM, as its `data` has them.
    A notice has an `endpoint_id`, and a `cvm_id` of "": an endpoint may be called as a CVM is.
    """

    id: str
    sequence: int
    type: str
    cvm_id: str
    json: str
    app_id: str | None = None
    name: str | None = None
    endpoint_id: str = ""
    traceparent: str = ""
    tracestate: str = ""

    @property
    def trace(self) -> Trace | None:
        """That in which it was observed; None for events of earlier versions."""
        return read(self.traceparent, self.tracestate)

    @property
    def lane(self) -> str:
        """What must be delivered in order."""
        return f"endpoint:{self.endpoint_id}" if self.endpoint_id else self.cvm_id

    @classmethod
    def from_log(cls, entry_id: str, text: str) -> Event:
        """From a log entry's id and its `event` field. Raises ValueError for an entry that the bridge did not write."""
        return read_entry(entry_id, text)[0]

    @classmethod
    def from_json(cls, text: str) -> Event:
        """From the envelope's JSON as it is published. Raises ValueError for anything else."""
        return _read(text)[0]


def read_entry(entry_id: str, text: str) -> tuple[Event, dict[str, Any]]:
    """A log entry as event and parsed envelope. Raises ValueError for an entry that the bridge did not write."""
    event, parsed = _read(f'{{"id":"{entry_id}",{text[1:]}')
    if event.id != entry_id:
        raise ValueError("not an event of this log")
    return event, parsed


def _read(text: str) -> tuple[Event, dict[str, Any]]:
    # Logs that began before `sequence` was padded hold plain numbers; these leave here as they are written today.
    try:
        parsed = json.loads(text, parse_int=_integer)
        written = str(parsed["sequence"])
        sequence = int(parsed["sequence"])
        if len(written) < SEQUENCE_DIGITS:
            text = text.replace(f'"sequence":"{written}"', f'"sequence":"{sequence_text(sequence)}"', 1)
        kind, subject = str(parsed["type"]), str(parsed["subject"])
        cvm_id, endpoint_id = ("", subject) if kind in NOTICES else (subject, "")
        head = str(parsed["id"]), sequence, kind, cvm_id
        # What is told of an endpoint belongs to no set of CVMs.
        app_id, name = (None, None) if endpoint_id else _app_and_name(parsed.get("data"))
        traced = str(parsed.get("traceparent", "")), str(parsed.get("tracestate", ""))
        event = Event(*head, text, app_id, name, endpoint_id, *traced)
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError("not an event of this log") from error
    # It becomes lines of an SSE stream.
    if "\n" in text or "\r" in text or not event.type.isprintable() or not 0 <= sequence < 10**SEQUENCE_DIGITS:
        raise ValueError("not an event of this log")
    return event, parsed


def _app_and_name(data: object) -> tuple[str | None, str | None]:
    app_id, name = (data.get("app_id"), data.get("name")) if isinstance(data, dict) else (None, None)
    return app_id if isinstance(app_id, str) else None, name if isinstance(name, str) else None


def sequence_text(sequence: int) -> str:
    """A sequence as envelopes have it: of a fixed width, so that sequences order as text (CloudEvents demands it)."""
    return f"{sequence:0{SEQUENCE_DIGITS}d}"


_ENTRY_ID = re.compile("([0-9]{1,20})(?:-([0-9]{1,20}))?")


def entry_key(entry_id: str) -> tuple[int, int]:
    """A log id (`milliseconds-counter`) as something that compares. Raises ValueError if it is not one."""
    match = _ENTRY_ID.fullmatch(entry_id)
    # Redis refuses more than 64 bits, but accepts all of them from any client, and later ids go on from there.
    if match is None or max(key := (int(match[1]), int(match[2] or "0"))) >= 1 << 64:
        raise ValueError("not a log id")
    return key
