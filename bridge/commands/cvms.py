"""`bridge cvms`: the watched CVMs, of all pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.client import Client, Query
from bridge.commands.asking import Exit, Output
from bridge.commands.tables import cvm_table
from bridge.events import dumps


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which CVMs: of these references and sets, with one of these statuses, ready or not. Empty and None: all."""

    references: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    ready: bool | None = None

    def query(self) -> Query:
        named: Query = [("cvm", each) for each in self.references]
        return [*named, *([] if self.ready is None else [("ready", self.ready)])]

    def has(self, cvm: dict[str, Any]) -> bool:
        """Whether it has one of the statuses, which the route does not select by."""
        return not self.statuses or cvm.get("status") in self.statuses


async def list_cvms(bridge: Client, output: Output, selection: Selection) -> Exit:
    """A table once all are known; in a pipe each as it comes. Raises BridgeError and BrokenPipeError."""
    found, read = [], 0
    async for cvm in bridge.items("/v1/cvms", selection.query()):
        read += 1
        output.progress = f"{read} CVMs read"
        if not selection.has(cvm):
            continue
        if output.is_terminal:
            found.append(cvm)
        else:
            output.lines([dumps(cvm)])
    if output.is_terminal:
        output.lines(cvm_table(found) if found else ["no such CVM is watched"])
    return Exit.DONE
