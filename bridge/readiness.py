"""Ready: the status is `running` and no operation is in progress, as upstream told both last
(`docs/contract.md#ready`). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bridge.events import RUNNING

MAX_TEXT = 256
"""Characters of an operation's type, time or id; ours are under 40, and each is in every event of the CVM."""

NAMES = ("type", "started_at", "correlation_id")


def is_passing(status: str | None) -> bool:
    """Whether a CVM does not stay in this status: `starting`, `stopping` and the like."""
    return status is not None and status.endswith("ing") and status != RUNNING


@dataclass(frozen=True, slots=True)
class Operation:
    """What upstream does with a CVM at the moment. Routes tell more or less of it: a field is None where none did."""

    type: str | None = None
    started_at: str | None = None
    correlation_id: str | None = None

    def continues(self, other: Operation) -> bool:
        """Whether both may be one operation: no field tells otherwise."""
        return all(
            mine is None or theirs is None or mine == theirs
            for mine, theirs in ((getattr(self, name), getattr(other, name)) for name in NAMES)
        )

    def with_more_from(self, other: Operation) -> Operation:
        """The same operation, with what only `other` tells of it."""
        return Operation(*(getattr(self, name) or getattr(other, name) for name in NAMES))


@dataclass(frozen=True, slots=True)
class Told:
    """What one answer tells of operations: the one in progress, or that there is none (None)."""

    operation: Operation | None

    @classmethod
    def by(cls, fields: Mapping[str, Any]) -> Told | None:
        """By a state, a batch answer or an entry of the list; None where it tells nothing."""
        in_progress = fields.get("in_progress")
        if not isinstance(in_progress, bool):
            return None
        names = ("operation_type", "operation_started_at", "correlation_id")
        return cls(Operation(*(_text(fields.get(name)) for name in names)) if in_progress else None)


@dataclass(frozen=True, slots=True)
class Readiness:
    """`ready` is None where upstream has told nothing of operations."""

    ready: bool | None = None
    operation: Operation | None = None

    def after(self, status: str | None, told: Told | None) -> Readiness:
        """As of this status and, where there is one, this newer answer."""
        if told is None and self.ready is None:
            return self
        found = told.operation if told else self.operation
        if found is not None and self.operation is not None and found.continues(self.operation):
            found = self.operation.with_more_from(found)
        return Readiness(status == RUNNING and found is None, found)

    def gone(self) -> Readiness:
        """As of the CVM's end."""
        return self if self.ready is None else Readiness(ready=False)

    def differs(self, before: Readiness) -> bool:
        """Whether `ready` changed, or an operation began or ended."""
        if self.ready != before.ready:
            return True
        if self.operation is None or before.operation is None:
            return self.operation is not before.operation
        return not self.operation.continues(before.operation)

    def reason(self, status: str | None, boot_error: object) -> str:
        """Why it is ready or not: `running`, `operation`, `boot_error`, or the status."""
        if self.operation is not None:
            return "operation"
        return "boot_error" if boot_error and status != RUNNING else status or "unknown"

    def operation_fields(self) -> dict[str, str | None] | None:
        """As JSON has it."""
        return asdict(self.operation) if self.operation else None


def read_operation(value: object) -> Operation | None:
    """From the JSON that `operation_fields` made. Raises ValueError for anything else."""
    if value is None:
        return None
    if not isinstance(value, dict) or any(not isinstance(value.get(name), str | None) for name in NAMES):
        raise ValueError("not an operation as the bridge writes it")
    return Operation(*(value.get(name) for name in NAMES))


def _text(value: object) -> str | None:
    """Upstream's text, if it is one of a usable length."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None
