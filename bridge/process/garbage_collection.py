"""The garbage collector of a process with many connections."""

from __future__ import annotations

import gc


def settle_garbage_collection() -> None:
    """Exempts all objects of now from collections, and makes collections rare.

    Ten thousand subscribers are a million new objects within two seconds, and no garbage: with the default thresholds
    the collector takes a third of that time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
