"""Asks for what `absence.py` needs to weigh a 404: another CVM's state, or the list where no other one can answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.backoff import Backoff
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.tracked import NEVER, Tracked
from bridge.upstream.workspace import Workspace

logger = logging.getLogger(__name__)

NOT_FOUND = "upstream answers 404 for every CVM that it is asked for: check PHALA_CLOUD_API_PREFIX and the key"

PROBE_EVERY = 3.0
"""Seconds between two reads while upstream is at fault: every CVM may be in a long backoff."""

LIST_EVERY, LIST_LATEST = 10.0, 300.0
"""Seconds between two lists that are asked for as a witness, at first and at last: a large one costs 100 requests."""


@dataclass(slots=True)
class SecondWitness:
    """One term's search for second witnesses."""

    context: LeaderContext
    workspace: Workspace
    lists: Backoff = field(default_factory=lambda: Backoff(first=LIST_EVERY, longest=LIST_LATEST))
    probed_at: float = NEVER

    @property
    def every(self) -> float:
        """Seconds between two looks, so that a deletion is told within two intervals."""
        return min(1.0, max(0.1, self.context.settings.poll_interval / 4))

    async def look(self) -> None:
        """Tells a fault of upstream, asks for witnesses, and has a CVM read that is gone with proof."""
        alive = [tracked for tracked in self.context.watches.values() if not tracked.gone]
        self._judge_upstream(alive)
        suspects = [tracked for tracked in alive if tracked.absence.is_suspected]
        if not suspects:
            self.lists.heal()
        elif not self.context.budget.is_blocked:
            if not self._ask_another(alive, suspects):
                await self._ask_list(max(tracked.absence.own_since for tracked in suspects))
            self._read_proven(suspects, alone=len(alive) == 1)

    def _judge_upstream(self, alive: Sequence[Tracked]) -> None:
        context = self.context
        at_fault = context.witnesses.accuse_upstream(tracked.absence for tracked in alive)
        if at_fault and not context.fault:
            logger.error(NOT_FOUND, extra={"cvms": sum(tracked.absence.is_missing for tracked in alive)})
        if context.fault and not at_fault:
            logger.info("upstream finds the watched CVMs again")
            context.batch_again_at = NEVER  # it was not found either
            self._read_again(alive)
        context.fault = NOT_FOUND if at_fault else ""
        now = context.clock.monotonic()
        if at_fault and now >= self.probed_at + PROBE_EVERY:
            self.probed_at = now
            self._read_again([min(alive, key=lambda each: (-each.reads.backoff.until, each.cvm_id))])

    def _read_again(self, alive: Sequence[Tracked]) -> None:
        """Those that were not found, whatever their backoff is."""
        for tracked in alive:
            if tracked.absence.is_missing:
                tracked.reads.backoff.heal()
                tracked.reads.bring_forward(self.context.clock.monotonic())

    def _ask_another(self, alive: Sequence[Tracked], suspects: Sequence[Tracked]) -> bool:
        """False: no other watched CVM can answer."""
        context, now = self.context, self.context.clock.monotonic()
        if max(tracked.absence.own_since for tracked in suspects) <= context.witnesses.answered_at:
            return True
        others = [each for each in alive if not each.absence.is_missing and each.reads.backoff.until <= now]
        if others and not any(each.reads.running or each.reads.is_hinted for each in others):
            min(others, key=lambda each: each.seen.made_at).reads.hint(now, first=True)
        return bool(others)

    async def _ask_list(self, since: float) -> None:
        now = self.context.clock.monotonic()
        if now >= self.lists.until:
            self.lists.fail(now, self.context.rng, LIST_EVERY)
            await self.workspace.listed_since(since, patience=0.0)

    def _read_proven(self, suspects: Sequence[Tracked], *, alone: bool) -> None:
        for tracked in suspects:
            if self.context.witnesses.prove(tracked.cvm_id, tracked.absence, alone=alone):
                tracked.reads.bring_forward(self.context.clock.monotonic())
