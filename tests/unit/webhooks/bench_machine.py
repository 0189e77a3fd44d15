"""What state machines over lanes share: a loop of their own, a hand-moved clock, and the end of both."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from tests.fakes import HandClock, redis_time
from tests.lanes import Bench

T = TypeVar("T")


class BenchMachine(RuleBasedStateMachine):
    bench: Bench
    """Set by the machine's own `initialize` rule."""

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.clock, self.stack = asyncio.Runner(), HandClock(), ExitStack()
        self.stack.enter_context(redis_time(self.clock))

    def do(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    async def finish(self) -> None:
        """Checks what must hold once the last rule has run."""

    def teardown(self) -> None:
        try:
            if hasattr(self, "bench"):
                self.do(self.finish())
                self.do(self.bench.backend.close())
        finally:
            self.runner.close()
            self.stack.close()
