"""`BRIDGE_TOKENS_FILE` while the front end runs: what changes in it counts without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from bridge.clock import Clock
from bridge.config import Token
from bridge.config_values import tokens
from bridge.secret_files import SecretFileError, Version
from bridge.web import metrics

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks. A change counts at the second look, so that a file that is being written is not taken."""


class Followed(Protocol):
    """See `SecretFile`."""

    def version(self) -> Version | None: ...
    def read(self) -> str: ...


class TokensFile:
    """`change` gets the tokens of each version of the file that can be used. `is_broken`: the last one cannot."""

    def __init__(self, file: Followed, change: Callable[[tuple[Token, ...]], None]) -> None:
        self._file = file
        self._change = change
        self._seen = file.version()
        self._used: Version | None = ()  # of no file: it may have changed since the settings were read
        self.is_broken = False
        metrics.TOKENS_FILE_BROKEN.set(0)

    async def run(self, clock: Clock) -> None:
        """Looks now and then. Never returns."""
        while True:
            await clock.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Takes a file that has changed and has not changed since the last look."""
        before, self._seen = self._seen, self._file.version()
        if self._seen == self._used or self._seen != before:
            return
        try:
            found, fault = tokens(self._file.read()), ""
        except (SecretFileError, ValueError) as error:
            found, fault = (), str(error)
        if self._file.version() != self._seen:
            return  # it was changed while it was read: a later look takes it
        self._used = self._seen
        self._tell(fault)
        if not fault:
            self._change(found)

    def _tell(self, fault: str) -> None:
        if fault:
            logger.error("BRIDGE_TOKENS_FILE cannot be used, the tokens stay as they were", extra={"error": fault})
        elif self.is_broken:
            logger.info("BRIDGE_TOKENS_FILE can be used again")
        self.is_broken = bool(fault)
        metrics.TOKENS_FILE_BROKEN.set(self.is_broken)
