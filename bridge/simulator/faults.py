"""Answers that go wrong on request: the next N of a route, or all of them."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RouteName = Literal["state", "stream", "batch", "list", "details", "webhooks"]

#: `reset`: the connection is reset before the headers; `hang`: no answer at all; for streams alone `end`: 200 and the
#: end at once; `silent`: 200 and nothing more; `mute`: 200, the state on connect, and nothing more.
Action = Literal["reset", "hang", "end", "silent", "mute"]


class Fault(BaseModel):
    """One fault, for one `cvm` (a vm uuid once stored) and `user`, or all. `times` None: until it is removed.

    After `delay` real seconds comes `action`, or `status` with `headers` and `body`, or else the true answer.
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
            raise ValueError("give either action or status")
        if self.action in ("end", "silent", "mute") and self.route != "stream":
            raise ValueError(f"{self.action} is for the route stream")
        return self

    def applies(self, route: RouteName, cvm: str | None, user: str | None) -> bool:
        """Whether it applies to this request and is not used up."""
        left = self.times is None or self.hits < self.times
        return left and self.route in ("*", route) and self.cvm in (None, cvm) and self.user in (None, user)


class Faults:
    """The faults in the order of their creation; a request gets at most one, the oldest that applies."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._ids = itertools.count(1)

    def add(self, fault: Fault) -> Fault:
        fault.id = next(self._ids)
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int | None = None) -> bool:
        """Removes one, or all. False if there is no such fault."""
        if fault_id is not None:
            return self._faults.pop(fault_id, None) is not None
        self._faults.clear()
        return True

    def all(self) -> list[Fault]:
        """Also used-up ones; their `hits` show a test that they applied."""
        return list(self._faults.values())

    def take(self, route: RouteName, cvm: str | None, user: str | None) -> Fault | None:
        """The fault that applies to this request; counts it."""
        fault = next((fault for fault in self._faults.values() if fault.applies(route, cvm, user)), None)
        if fault is not None:
            fault.hits += 1
        return fault
