"""The simulated CVMs: identities, states, and how references find them. It has no I/O and no clock of its own.

All times are simulated Unix seconds and are passed in. Changes are returned; the caller announces them.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from bridge.simulator.scenes import PHASE_FIELDS, Step, name_for, next_scene

#: A deleted CVM is replaced by another one of its app after so many seconds (from, to).
REPLACED_AFTER = (10.0, 30.0)

#: How many deleted CVMs are remembered (for `restore` and the counters): a demo runs for weeks.
MAX_DELETED = 1000

ABSENT: Any = object()

#: A kind of reference and its normal form.
Form = tuple[str, str]


def dumps(value: object) -> bytes:
    """JSON as FastAPI writes it: compact, UTF-8, and escaped where UTF-8 cannot hold it (lone surrogates).

    Other objects, as the exceptions in pydantic's error contexts, become their text.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), default=str).encode()


@dataclass(frozen=True, slots=True)
class Change:
    """A CVM's change of status (the same one if only other fields changed). `after` None: the CVM is gone."""

    cvm: Cvm
    before: str | None
    after: str | None
    #: Whether it had been running before, and whether it was restarting: the events of Phala Cloud's webhooks differ.
    ran: bool
    restarting: bool = False


@dataclass(eq=False)
class Cvm:
    """One CVM. `fields`: its state without identity and uptime, verbatim; `raw` replaces the whole state.
    `operation`: what is in progress beside the status (`type`, `started_at`, `correlation_id`)."""

    number: int
    random: Random = field(repr=False)
    vm_uuid: str
    cvm_id: str
    app_id: str
    instance_id: str
    name: str
    owner: str | None = None
    fields: dict[str, Any] = field(default_factory=lambda: {"status": "provisioning"})
    raw: bytes | None = field(default=None, repr=False)
    operation: Mapping[str, str | None] | None = None
    created_at: float = 0.0
    up_since: float = 0.0
    deleted: bool = False
    ran: bool = False
    restarting: bool = False
    steps: deque[Step] = field(default_factory=deque, repr=False)
    due: float = 0.0

    @property
    def status(self) -> str:
        """The status; the empty string if a test has set it to something that is not a string."""
        status = self.fields.get("status")
        return status if isinstance(status, str) else ""

    def state(self, now: float) -> dict[str, Any]:
        """The state route's object: absent fields are left out, as the JavaScript SDK rejects null."""
        state: dict[str, Any] = {"id": self.vm_uuid, "instance_id": self.instance_id, "name": self.name}
        state |= {"status": self.fields.get("status", ABSENT)}
        if self.status == "running":
            state["uptime"] = uptime(now - self.up_since)
        state |= self.fields
        return {key: value for key, value in state.items() if value is not ABSENT}

    def body(self, now: float) -> bytes:
        """The state as bytes: `raw` if a test has set it, else JSON."""
        return dumps(self.state(now)) if self.raw is None else self.raw

    def forms(self) -> set[Form]:
        """The keys under which `find` finds it; see `forms_of`."""
        return {
            ("name", self.name),
            ("hashed", self.cvm_id),
            ("uuid", self.vm_uuid.replace("-", "").lower()),
            ("app", self.app_id.lower()),
            ("instance", self.instance_id.lower()),
        }


def forms_of(ref: str) -> set[Form]:
    """What a reference may be: a uuid with or without dashes, an app id, an instance id, `cvm_…`, a name."""
    folded = ref.lower()
    return {
        ("name", ref),
        ("hashed", ref),
        ("uuid", folded.replace("-", "")),
        ("app", folded.removeprefix("app_")),
        ("instance", folded.removeprefix("instance_")),
    }


def uptime(seconds: float) -> str:
    """`1d 2h 3m 4s`, without the leading parts that are zero."""
    left, text = max(int(seconds), 0), ""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if text or left >= size:
            text += f"{left // size}{unit} "
            left %= size
    return f"{text}{left}s"


def timestamp(now: float) -> str:
    """RFC 3339 with microseconds, as upstream's `exited_at` and `created_at`."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class World:
    """The CVMs, in the order of their creation. The same seed and times give the same changes, however often `advance`
    is called. `frozen`: nothing happens by itself.
    """

    def __init__(self, seed: int = 0, cvms: int = 12, *, frozen: bool = False, now: float = 1_795_536_000.0) -> None:
        self.seed = seed
        self.start = self.now = now
        self.frozen = frozen
        self._random = Random(f"{seed}/world")
        self.webhook_ids = Random(f"{seed}/hooks")
        self._made = 0
        self._replacements: list[tuple[float, str]] = []
        """When a CVM is to be made, and its app."""
        self._cvms: list[Cvm] = []
        self._deleted: list[Cvm] = []
        self._index: dict[Form, list[Cvm]] = {}
        for _ in range(cvms):
            self._age(self.create(status="running"))

    @property
    def cvms(self) -> list[Cvm]:
        """Those that exist."""
        return list(self._cvms)

    def seen_by(self, user: str) -> list[Cvm]:
        """Those that exist and belong to the user or to all users."""
        return [cvm for cvm in self._cvms if visible(cvm, user)]

    @property
    def all_cvms(self) -> list[Cvm]:
        """Also the deleted ones."""
        return sorted(self._cvms + self._deleted, key=lambda cvm: cvm.number)

    def find(self, ref: str, user: str | None = None) -> list[Cvm]:
        """The CVMs that `ref` names and `user` may see (None: any user)."""
        return [cvm for cvm in self.find_any(ref) if not cvm.deleted and visible(cvm, user)]

    def find_any(self, ref: str) -> list[Cvm]:
        """As `find`, also deleted ones and those of any user."""
        found = {id(cvm): cvm for form in forms_of(ref) for cvm in self._index.get(form, ())}
        return sorted(found.values(), key=lambda cvm: cvm.number)

    def by_uuid(self, vm_uuid: str, user: str | None = None) -> Cvm | None:
        """The CVM with this vm uuid, with or without dashes."""
        found = self._index.get(("uuid", vm_uuid.replace("-", "").lower()), ())
        return next((cvm for cvm in found if not cvm.deleted and visible(cvm, user)), None)

    def freeze(self, frozen: bool) -> None:
        """Unfrozen CVMs begin a new scene from their present status; the time in between is skipped."""
        if self.frozen and not frozen:
            self._replacements.clear()
            for cvm in self.cvms:
                self._plan(cvm)
        self.frozen = frozen

    def create(self, *, status: str = "running", **identity: Any) -> Cvm:
        """A new CVM. `identity`: `name`, `vm_uuid`, `app_id`, `instance_id`, `owner`; those not given are random."""
        number = self._made
        self._made += 1
        random = Random(f"{self.seed}/{number}")
        random_identity = {
            "vm_uuid": str(uuid.UUID(int=random.getrandbits(128), version=4)),
            "cvm_id": f"cvm_{random.getrandbits(40):010x}",
            "app_id": f"{random.getrandbits(160):040x}",
            "instance_id": f"{random.getrandbits(160):040x}",
            "name": name_for(number, random),
        }
        cvm = Cvm(number, random, **(random_identity | identity), fields={"status": status}, ran=status == "running")
        cvm.created_at = cvm.up_since = self.now
        self._cvms.append(cvm)
        self._enter(cvm)
        self._plan(cvm)
        return cvm

    def _enter(self, cvm: Cvm) -> None:
        for form in cvm.forms():
            self._index.setdefault(form, []).append(cvm)

    def _leave(self, cvm: Cvm) -> None:
        for form in cvm.forms():
            self._index[form].remove(cvm)
            if not self._index[form]:
                del self._index[form]

    def identify(self, cvm: Cvm, **identity: Any) -> None:
        """Gives it another name, app id, instance id or owner: names move between CVMs."""
        self._leave(cvm)
        for field_name, value in identity.items():
            setattr(cvm, field_name, value)
        self._enter(cvm)

    def _age(self, cvm: Cvm) -> None:
        """Makes a CVM of the start older: it has run for a while, and its first scene is near. The first CVM changes
        within two seconds, so that a demo shows something at once, the last one within forty.
        """
        cvm.up_since -= cvm.random.uniform(60, 300_000)
        cvm.created_at = cvm.up_since - cvm.random.uniform(60, 3_000_000)
        cvm.due = self.now + cvm.random.uniform(1, min(2 + 3 * cvm.number, 40))

    def update(self, cvm: Cvm, values: Mapping[str, Any], unset: Iterable[str] = ()) -> Change:
        """Sets state fields verbatim. A new status also clears the old one's phase fields and begins a new scene."""
        change = self._set(cvm, {**values, **dict.fromkeys(unset, ABSENT)})
        self._plan(cvm)
        return change

    def _set(self, cvm: Cvm, values: Mapping[str, Any]) -> Change:
        before, ran, restarting = cvm.status, cvm.ran, cvm.restarting
        if values.get("status", before) != before:
            for name in PHASE_FIELDS:
                cvm.fields.pop(name, None)
            cvm.up_since = self.now
        cvm.fields.update(values)
        cvm.ran = ran or cvm.status == "running"
        cvm.restarting = cvm.status == "restarting" or (restarting and cvm.status == "starting")
        return Change(cvm, before, cvm.status, ran, restarting)

    def delete(self, cvm: Cvm) -> Change:
        """References no longer find it. Deleting twice is no change."""
        if cvm.deleted:
            return Change(cvm, None, None, cvm.ran)
        cvm.deleted = True
        cvm.steps.clear()
        self._cvms.remove(cvm)
        self._deleted.append(cvm)
        if len(self._deleted) > MAX_DELETED:
            self._leave(self._deleted.pop(0))
        return Change(cvm, cvm.status, None, cvm.ran)

    def scale(self, app_id: str, replicas: int, status: str) -> list[Change]:
        """Makes CVMs of the app in this status, or deletes its newest, until it has so many."""
        present = [cvm for cvm in self._cvms if cvm.app_id == app_id]
        gone = [self.delete(cvm) for cvm in present[replicas:]]
        made = [self.create(status=status, app_id=app_id) for _ in range(replicas - len(present))]
        return gone + [Change(cvm, None, cvm.status, False) for cvm in made]

    def restore(self, cvm: Cvm) -> Change:
        """It exists again as it was. Restoring a CVM that exists is no change."""
        if not cvm.deleted:
            return Change(cvm, cvm.status, cvm.status, cvm.ran)
        cvm.deleted = False
        self._deleted.remove(cvm)
        self._cvms = sorted([*self._cvms, cvm], key=lambda cvm: cvm.number)
        self._plan(cvm)
        return Change(cvm, None, cvm.status, cvm.ran)

    def advance(self, now: float) -> list[Change]:
        """Lets everything happen that is due by `now`, in order of time. `now` must not decrease."""
        changes: list[Change] = []
        while not self.frozen and (due := self._next_due()) <= now:
            self.now = max(self.now, due)
            changes.append(self._happen(due))
        self.now = max(self.now, now)
        return changes

    def _next_due(self) -> float:
        dues = [cvm.due for cvm in self._cvms if cvm.steps]
        return min(dues + [at for at, _ in self._replacements], default=float("inf"))

    def _happen(self, due: float) -> Change:
        if replacement := next((each for each in self._replacements if each[0] == due), None):
            self._replacements.remove(replacement)
            cvm = self.create(status="provisioning", app_id=replacement[1])
            return Change(cvm, None, cvm.status, False)
        cvm = next(cvm for cvm in self._cvms if cvm.steps and cvm.due == due)
        return self._take(cvm, cvm.steps.popleft())

    def _take(self, cvm: Cvm, step: Step) -> Change:
        if step.end:
            self._replacements.append((self.now + self._random.uniform(*REPLACED_AFTER), cvm.app_id))
            return self.delete(cvm)
        values: dict[str, Any] = dict(step.fields)
        if step.status is not None:
            values["status"] = step.status
        if step.exits:
            values["exited_at"] = timestamp(self.now)
        change = self._set(cvm, values)
        if cvm.steps:
            cvm.due = self.now + cvm.steps[0].delay
        else:
            self._plan(cvm)
        return change

    def _plan(self, cvm: Cvm) -> None:
        cvm.steps = deque(() if cvm.deleted else next_scene(cvm.status, cvm.random, lasting=cvm.number == 0))
        cvm.due = self.now + cvm.steps[0].delay if cvm.steps else 0.0


def visible(cvm: Cvm, user: str | None) -> bool:
    """Whether `user` may see it; every user sees a CVM without an owner."""
    return user is None or cvm.owner in (None, user)
