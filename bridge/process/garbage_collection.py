"""The garbage collector of a process with many connections."""

from __future__ import annotations

import gc


def settle_garbage_collection() -> None:
    """What is here now stays, so that collections need not walk through it; and they come seldom.

    Ten thousand subscribers are a million young objects within two seconds, none of them garbage: with the default
    thresholds the collector takes a third of that time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
