"""Mends data in Redis that no bridge wrote, before a leader's term begins.

Damage that shows in the middle of a term ends it (`StoreError`), so the next term mends it. What the lease, the log's
record and the slots need is in their own scripts (`acquire.lua`, `slot_rules.lua`): they are read before or apart.
"""

from __future__ import annotations

import logging

from bridge.store.connection import Backend, load_script
from bridge.store.errors import FencedError
from bridge.store.leadership import Term

logger = logging.getLogger(__name__)

MOVED_AT_ONCE = 200
"""Log entries per script: some milliseconds, during which the server answers no other client."""

_mend = load_script("mend")
_rebuild = load_script("log_rules", "group_rules", "rebuild_log")


async def mend(backend: Backend, term: Term) -> None:
    """One log line for each key that was removed or rebuilt. Raises FencedError, StoreError."""
    keys = backend.keys
    types = {
        keys.state: "hash",
        keys.watches: "zset",
        keys.watches_revision: "string",
        keys.pins: "set",
        keys.config_pins: "set",
        keys.demand: "hash",
        keys.lookups: "zset",
        keys.hints: "set",
        keys.leader_status: "string",
        keys.polling: "hash",
        keys.batch_digests: "hash",
        keys.confirmed: "hash",
        keys.rounds: "hash",
        keys.notices: "stream",
        keys.known_notices: "zset",
        keys.seen_groups: "hash",
    }
    done, *rest = await backend.run(_mend, [keys.leader, *types], [term.holder, term.epoch, *types.values()])
    if not done:
        raise FencedError
    for key in rest[0]:
        logger.error("a key in Redis had another type than the bridge gives it, and was removed", extra={"key": key})
    await _unblock_log(backend, term)


async def _unblock_log(backend: Backend, term: Term) -> None:
    """Ids, numbers and the log id stay, so that every cursor stays good."""
    keys = backend.keys
    names = [keys.leader, keys.meta, keys.log, keys.rebuilt_log, keys.webhooks]
    at = "-"
    while at:
        done, at = await backend.run(_rebuild, names, [term.holder, term.epoch, at, MOVED_AT_ONCE])
        if not done:
            raise FencedError
        if int(done) == 1 and not at:
            logger.error(
                "the log was rebuilt: an entry that the bridge did not write had the highest id; consumer groups keep "
                "their ids and forget what was pending"
            )
