"""A workspace whose CVMs have apps and names of their own, before the model of upstream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bridge.readiness import Told
from bridge.upstream.client import Listed, Reading
from bridge.upstream.errors import ConflictError, NotFoundError
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.test_discovery import Lister

WEB, OTHER = "app_0a", "app_0b"


class Fleet(Cloud):
    """`cvms`: app and name of each, by id."""

    def __init__(self, cvms: dict[str, tuple[str, str]]) -> None:
        super().__init__(list(cvms))
        self.cvms = dict(cvms)
        self.operations: dict[str, str] = {}
        """Correlation id of the operation in progress, by CVM."""

    def add(self, cvm_id: str, app_id: str, name: str, status: str = "starting") -> None:
        self.cvms[cvm_id], self.status[cvm_id] = (app_id, name), None
        self.change(cvm_id, status)

    def rename(self, cvm_id: str, name: str) -> None:
        self.cvms[cvm_id] = self.cvms[cvm_id][0], name


class FleetClient(Lister):
    """As upstream: a name that several CVMs have is refused, and the list may write an app without its prefix."""

    _cloud: Fleet
    listed_by_uuid = True

    def _raw(self, name: str) -> str:
        return json.dumps(json.loads(super()._raw(name)) | {"name": self._cloud.cvms[name][1]})

    async def read_state(self, ref: str) -> Reading:
        return await super().read_state(self._one(ref))

    def _one(self, ref: str) -> str:
        if ref in self._cloud.cvms:
            return ref
        alive = {key: each for key, each in self._cloud.cvms.items() if self._cloud.status[key] is not None}
        found = [key for key, (app_id, name) in alive.items() if ref in (app_id, name, f"hashed-{key}")]
        if len(found) != 1:
            raise ConflictError(status=409) if found else NotFoundError(status=404)
        return found[0]

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        answers = await super().batch(ids)
        for name, answer in answers.items():
            operation = self._cloud.operations.get(name)
            answer |= {"in_progress": operation is not None, "correlation_id": operation}
        return answers

    async def read_listed(self, ref: str) -> Listed:
        await self._reach()
        cvm_id = self._one(ref)
        return self._listed(cvm_id, self._cloud.status[cvm_id] or "")

    def _listed(self, name: str, status: str) -> Listed:
        app_id, shown = self._cloud.cvms[name]
        return Listed(
            vm_uuid=name if self.listed_by_uuid else None,
            hashed_id=f"hashed-{name}",
            name=shown,
            app_id=app_id.removeprefix("app_"),
            status=status,
            told=Told.by({"in_progress": name in self._cloud.operations}),
        )
