"""The event that every contestant sends: a real envelope with a mark in its state that the load client knows."""

from __future__ import annotations

import time

from bridge.clock import rfc3339
from bridge.events import TRANSITION, Draft, cvm_data
from bridge.store.snapshots import Snapshot

CVM_ID = "0f3d4ea7-9de8-42e9-9ab3-9fd1b4b815a0"
NAME = "web-1"
STATUSES = ("running", "restarting")


def raw_state(number: int, sent_ns: int) -> str:
    """As upstream writes a state, and the mark of `load.c` besides. `sent_ns` is of CLOCK_MONOTONIC, as there."""
    return (
        f'{{"id":"{CVM_ID}","instance_id":"5e0baf056f1d8ad4cd2127649e1df7ed401cf753","name":"{NAME}",'
        f'"status":"{STATUSES[number % 2]}","uptime":"3h 12m","boot_progress":null,"boot_error":null,'
        f'"bench":"@sent={sent_ns};n={number}@"}}'
    )


def draft(number: int, sent_ns: int) -> tuple[Draft, Snapshot]:
    """What the store's own log writer appends."""
    now, state = rfc3339(time.time()), raw_state(number, sent_ns)
    status, before = STATUSES[number % 2], STATUSES[(number + 1) % 2]
    data = cvm_data(CVM_ID, NAME, (before, status), "stream", state)
    return Draft(TRANSITION, CVM_ID, now, data), Snapshot(CVM_ID, state, status, NAME, now, now, ever_ran=True)


def envelope(number: int, sent_ns: int) -> str:
    """The same event as bridge's subscribers get it, for those that have no log to number it."""
    text = draft(number, sent_ns)[0].envelope("/bridge/bench", number)
    return f'{{"id":"{time.time_ns() // 1_000_000}-0",{text[1:]}'
