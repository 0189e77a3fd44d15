"""The events of a bridge, typed, for `bridge.client` (docs/contract.md#the-event).

A field that is absent or of another type than the contract gives it is None; `data` and `json` have all that came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.events import (
    ANY_PHALA,
    DELIVERY_GIVEN_UP,
    DROPPED,
    FRESH,
    NOTICES,
    POSITION,
    READINESS,
    RESET,
    SNAPSHOT,
    STALE,
    STATE,
    TRANSITION,
    names_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event; of this very class if its type is not known here: its cursor counts all the same.

    `cursor`: a stream that begins here misses nothing that comes after this event; empty while the first snapshots are
    not complete. `json`: the text as it came. `time`: RFC 3339, UTC. `sequence`: its number in the log.
    `subject`: the id of the CVM or of the webhook endpoint that it is about.
    """

    type: str
    cursor: str
    id: str | None = None
    time: str | None = None
    sequence: int | None = None
    subject: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    json: str = field(default="", repr=False)

    def _text(self, name: str) -> str | None:
        value = self.data.get(name)
        return value if isinstance(value, str) else None

    def _flag(self, name: str) -> bool | None:
        value = self.data.get(name)
        return value if isinstance(value, bool) else None

    def _count(self, name: str) -> int | None:
        value = self.data.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _object(self, name: str) -> Mapping[str, Any] | None:
        value = self.data.get(name)
        return value if isinstance(value, dict) else None


class Position(Event):
    """No news, only a cursor."""

    __slots__ = ()


class Reset(Event):
    """Events were missed: what is known of the CVMs no longer counts. Snapshots follow, or a Position."""

    __slots__ = ()

    @property
    def reason(self) -> str | None:
        """`history_lost` or `unknown_cursor`."""
        return self._text("reason")


class CvmEvent(Event):
    """An event about one CVM."""

    __slots__ = ()

    @property
    def cvm_id(self) -> str | None:
        """Its canonical id; None in a notice of Phala Cloud about a CVM that the bridge does not know."""
        return self._text("cvm_id")

    @property
    def name(self) -> str | None:
        return self._text("name")

    @property
    def app_id(self) -> str | None:
        """Its app; None until upstream has told it."""
        return self._text("app_id")


class _WithReadiness(CvmEvent):
    __slots__ = ()

    @property
    def ready(self) -> bool | None:
        """None where upstream tells nothing of operations."""
        return self._flag("ready")

    @property
    def operation(self) -> Mapping[str, Any] | None:
        """`type`, `started_at` and `correlation_id` of what upstream does with the CVM; None while it does nothing."""
        return self._object("operation")


class _WithState(_WithReadiness):
    __slots__ = ()

    @property
    def status(self) -> str | None:
        """The status now; `deleted` once the CVM is gone; None in a snapshot of one that was not seen yet."""
        return self._text("to")

    @property
    def state(self) -> Mapping[str, Any] | None:
        """The state as upstream wrote it; None once the CVM is gone."""
        return self._object("state")


class Snapshot(_WithState):
    """The last known state of a CVM, at the beginning of a stream or after a Reset."""

    __slots__ = ()

    @property
    def is_last(self) -> bool:
        """Whether the snapshots are complete with this one."""
        return bool(self.cursor) and self.cursor == (self.id or "").partition("/")[0]

    @property
    def fresh(self) -> bool | None:
        """Whether the bridge vouches for this state."""
        return self._flag("fresh")

    @property
    def stale_reason(self) -> str | None:
        return self._text("stale_reason")

    @property
    def since(self) -> str | None:
        """When the status became this one. RFC 3339."""
        return self._text("since")

    @property
    def observed_at(self) -> str | None:
        """When the state was last confirmed. RFC 3339."""
        return self._text("observed_at")


class State(_WithState):
    """A CVM was seen for the first time (`status_before` is None), or a field other than the status changed."""

    __slots__ = ()

    @property
    def status_before(self) -> str | None:
        return self._text("from")

    @property
    def observed_by(self) -> str | None:
        """`stream` or `poll`."""
        return self._text("observed_by")


class Transition(State):
    """The status changed."""

    __slots__ = ()


class Readiness(_WithReadiness):
    """`ready` changed, or an operation began or ended."""

    __slots__ = ()

    @property
    def was_ready(self) -> bool | None:
        return self._flag("was_ready")

    @property
    def reason(self) -> str | None:
        """`running`, `operation`, `boot_error` or the status."""
        return self._text("reason")


class Stale(CvmEvent):
    """The bridge can no longer vouch for the CVM's state."""

    __slots__ = ()

    @property
    def reason(self) -> str | None:
        return self._text("reason")


class Fresh(CvmEvent):
    """The bridge vouches for the CVM's state again; a change that was missed meanwhile follows."""

    __slots__ = ()


class Dropped(CvmEvent):
    """The CVM is no longer watched."""

    __slots__ = ()


class PhalaNotice(CvmEvent):
    """A webhook of Phala Cloud itself, of a type `phala.<event>`."""

    __slots__ = ()

    @property
    def notice(self) -> Mapping[str, Any] | None:
        """Phala Cloud's envelope, as it came."""
        return self._object("notice")


class EndpointNotice(Event):
    """A webhook endpoint is in trouble, was disabled, has recovered, or missed a delivery: `type` tells which.

    It comes only where `types` names it.
    """

    __slots__ = ()

    @property
    def endpoint_id(self) -> str | None:
        return self._text("endpoint_id")

    @property
    def url(self) -> str | None:
        """Without path and query."""
        return self._text("url")

    @property
    def description(self) -> str | None:
        return self._text("description")

    @property
    def since(self) -> str | None:
        """When the failures began; None where there were none. RFC 3339."""
        return self._text("since")

    @property
    def pending(self) -> int | None:
        """How many deliveries wait."""
        return self._count("pending")

    @property
    def given_up(self) -> int | None:
        """How many deliveries were given up that no earlier notice counted."""
        return self._count("given_up")

    @property
    def reason(self) -> str | None:
        """Why the bridge disabled it, or what the last attempt came to; None where there is no such reason."""
        return self._text("reason")


class DeliveryGivenUp(EndpointNotice):
    """The last attempt of a delivery failed."""

    __slots__ = ()

    @property
    def delivery_id(self) -> str | None:
        return self._text("delivery_id")

    @property
    def event(self) -> Mapping[str, Any] | None:
        """`id`, `sequence`, `type` and `subject` of what was not delivered."""
        return self._object("event")

    @property
    def attempts(self) -> int | None:
        """How many there were."""
        return self._count("attempts")


_CLASSES: Mapping[str, type[Event]] = {
    TRANSITION: Transition,
    STATE: State,
    READINESS: Readiness,
    STALE: Stale,
    FRESH: Fresh,
    DROPPED: Dropped,
    SNAPSHOT: Snapshot,
    RESET: Reset,
    **dict.fromkeys(NOTICES, EndpointNotice),
    DELIVERY_GIVEN_UP: DeliveryGivenUp,
}


def read_event(name: str, text: str, cursor: str) -> Event:
    """The event of an SSE block: its `event:` and `data:`. A text of unknown form is an Event of the type `name`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    envelope = found if isinstance(found, dict) else {}
    kind = POSITION if name == POSITION else _text_or_none(envelope.get("type")) or name
    found_class = PhalaNotice if ANY_PHALA in names_of(kind) else _CLASSES.get(kind, Event)
    data, sequence = envelope.get("data"), envelope.get("sequence")
    return (Position if kind == POSITION else found_class)(
        type=kind,
        cursor=cursor,
        id=_text_or_none(envelope.get("id")),
        time=_text_or_none(envelope.get("time")),
        sequence=int(sequence) if isinstance(sequence, str) and sequence.isdecimal() and len(sequence) < 20 else None,
        subject=_text_or_none(envelope.get("subject")),
        data=data if isinstance(data, dict) else {},
        json=text,
    )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
