"""What goes wrong on request: the next N answers of a route, or all of them."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RouteName = Literal["state", "stream", "batch", "list", "details"]

#: `reset`: connection cut before the headers; `hang`: no answer ever; `end`: 200 and the end at once;
#: `silent`: 200 and nothing more; `mute`: 200, the state on connect, nothing more. The last three are for
#: streams.
Action = Literal["reset", "hang", "end", "silent", "mute"]


class Fault(BaseModel):
    """One fault. `cvm` (a vm uuid once stored) and `user` narrow it; `times` None: until it is removed.

    `delay` (real seconds) comes first; then `action`, or `status` with `headers` and `body`, or the true
    answer.
    """

    model_config = ConfigDict(extra="forbid")

    route: RouteName | Literal["*"]
    cvm: str | None = None
    user: str | None = None
    times: int | None = Field(default=1, ge=1)
    delay: float = Field(default=0.0, ge=0.0)
    status: int | None = Field(default=None, ge=200, le=599)
    headers: dict[str, str] = {}
    body: Any = None
    action: Action | None = None
    id: int = 0
    hits: int = 0

    @model_validator(mode="after")
    def _does_one_thing(self) -> Fault:
        if self.action is not None and self.status is not None:
            raise ValueError("either action or status")
        if self.action in ("end", "silent", "mute") and self.route != "stream":
            raise ValueError(f"{self.action} is for the route stream")
        return self

    def meets(self, route: RouteName, cvm: str | None, user: str | None) -> bool:
        """Whether it is for this request and not used up."""
        left = self.times is None or self.hits < self.times
        return left and self.route in ("*", route) and self.cvm in (None, cvm) and self.user in (None, user)


class Faults:
    """The faults in the order of their making; a request meets at most one, the oldest that fits."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._ids = itertools.count(1)

    def add(self, fault: Fault) -> Fault:
        fault.id = next(self._ids)
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int | None = None) -> bool:
        """One, or all; False where there is no such one."""
        if fault_id is not None:
            return self._faults.pop(fault_id, None) is not None
        self._faults.clear()
        return True

    def all(self) -> list[Fault]:
        """Also the used up ones: their `hits` tell a test that they were met."""
        return list(self._faults.values())

    def take(self, route: RouteName, cvm: str | None, user: str | None) -> Fault | None:
        """The fault that this request meets, counted."""
        fault = next((fault for fault in self._faults.values() if fault.meets(route, cvm, user)), None)
        if fault is not None:
            fault.hits += 1
        return fault
