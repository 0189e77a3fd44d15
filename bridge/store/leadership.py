"""The lead: a lease with an epoch that fences every write."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from bridge.store.connection import Backend, load_script
from bridge.store.errors import FencedError, StoreError, StoreUnavailableError
from bridge.store.foreign import decimal
from bridge.store.holdings import Holding, packed
from bridge.store.replicas import Copies, run_copied

logger = logging.getLogger(__name__)

DIGITS = 15
"""Of a time in milliseconds at most; a longer number is none."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a leader, which continues the log after `sequence` and `last_id`. `born`: the term made the log.

    `age` is the log's, in seconds. `ran_out` is the previous holder if its lease ran out, empty if it resigned.
    `before` is holder and epoch of the previous term.
    """

    holder: str
    epoch: int
    log_id: str
    sequence: int
    last_id: str
    born: bool
    age: float = math.inf
    ran_out: str = ""
    before: tuple[str, int] = ("", 0)

    def follows(self, past: Term) -> bool:
        """Whether no other process led between the two. A promoted replica may know a term before `past` only."""
        holder, epoch = self.before
        return self.log_id == past.log_id and (holder == past.holder or epoch < past.epoch)


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease that Redis has; `until` is seconds since the Unix epoch by the server's clock."""

    epoch: str
    until: float


async def read_lease(backend: Backend) -> Lease | None:
    """None if nobody has led yet, or the record cannot be read. A lease that was resigned is over since 1970.

    Raises StoreUnavailableError.
    """
    try:
        epoch, until = await backend.call(backend.client.hmget(backend.keys.leader, ["epoch", "until"]))
    except StoreUnavailableError:
        raise
    except StoreError:
        return None  # a key of another type: the next term replaces it
    until_ms = decimal(until, DIGITS)
    return None if epoch is None or until_ms is None else Lease(epoch, until_ms / 1000)


class Leadership:
    """Acquire, renew, resign. Only the Redis server's clock is used."""

    _acquire = load_script("log_rules", "acquire")
    _renew = load_script("slot_rules", "log_rules", "renew")
    _resign = load_script("resign")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.server_time = math.nan
        """Seconds since the Unix epoch by the server's clock, at the last `acquire` or `renew`."""
        self.copies = Copies()
        """Of the last `acquire` or `renew`."""
        self.others_log = ("", "", "")
        """Log id, sequence and last id as Redis had them when another process led, at the last `acquire`; as text, for
        they may be damaged."""

    async def acquire(
        self, holder: str, lease: float, log_id: str, last_id: str = "0-0", wait_ms: int = 0
    ) -> Term | float:
        """A term, or the seconds until the present leader's lease ends; `copies` tells whether a replica has it.

        `log_id` is for the log that has to be made if there is none; `last_id` is the highest id that this process ever
        wrote, above which a new log starts.
        """
        keys = self._backend.keys
        arguments = [holder, int(lease * 1000), log_id, last_id]
        answer, self.copies = await run_copied(
            self._backend, self._acquire, [keys.leader, keys.meta, keys.log], arguments, wait_ms
        )
        epoch, wait, found, sequence, last, born, now, age, ran_out, mended, *before = answer
        self.server_time = int(now) / 1000
        if mended:
            logger.error("Redis held data that the bridge did not write", extra={"mended": mended})
        if int(epoch) == 0:
            self.others_log = (str(found), str(sequence), str(last))
            return int(wait) / 1000
        return Term(
            holder,
            int(epoch),
            str(found),
            int(sequence),
            str(last),
            bool(born),
            int(age) / 1000,
            str(ran_out),
            (str(before[0]), int(before[1])),
        )

    async def renew(
        self, term: Term, lease: float, period: float, held: Iterable[Holding] = (), wait_ms: int = 0
    ) -> tuple[int, str]:
        """Extends the lease by `lease` seconds from now, writes the slots that are held again, and publishes a tick.

        Returns sequence and id of the log's last event; `copies` tells whether a replica has it. Raises FencedError.
        """
        keys = self._backend.keys
        arguments = [term.holder, term.epoch, int(lease * 1000), keys.tick_channel, period, *packed(held)]
        names = [keys.leader, keys.meta, keys.slots]
        answer, self.copies = await run_copied(self._backend, self._renew, names, arguments, wait_ms)
        if not answer:
            raise FencedError
        sequence, last_id, now = answer
        self.server_time = int(now) / 1000
        return int(sequence), str(last_id)

    async def resign(self, term: Term) -> None:
        """Ends the lease, so that a standby takes over at once."""
        await self._backend.run(self._resign, [self._backend.keys.leader], [term.holder, term.epoch])
