"""Runs the scripts of the lanes, and mends what all endpoints share where no bridge wrote it.

Damage of one endpoint's keys is that endpoint's alone: `scripts/lane_rules.lua` quarantines it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from bridge.store.connection import Backend, Script, load_script
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.limits import LaneLimits

logger = logging.getLogger(__name__)

_mend = load_script("lane_rules", "mend_webhooks")


async def run_lane_script(backend: Backend, script: Script, arguments: Sequence[object]) -> Any:
    """Runs it. Where Redis refuses that, it mends the shared keys and runs it once more, also if nothing was to mend:
    another process may have just done that. An error line names each key that it removes. Raises StoreError.
    """
    try:
        return await _run(backend, script, arguments)
    except StoreUnavailableError:
        raise
    except StoreError:
        for key in await _run(backend, _mend, [LaneLimits().to_json()]):
            logger.error(
                "a key in Redis had another type than the bridge gives it, and was removed", extra={"key": key}
            )
    return await _run(backend, script, arguments)


async def _run(backend: Backend, script: Script, arguments: Sequence[object]) -> Any:
    keys = backend.keys
    return await backend.run(script, [keys.webhooks, keys.meta, keys.log, keys.notices], arguments)
