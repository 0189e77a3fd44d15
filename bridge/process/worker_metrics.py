"""The directory in which workers keep their metrics, so that each of them can answer /metrics with the sum.

Parent and workers hold a shared lock of it; the last one that lets go removes it, also after a parent was killed. If
all of them were killed, the next parent on this machine removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import multiprocess

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own; it must be set before the library is imported."""

_PREFIX = "bridge-workers-"


@contextlib.contextmanager
def metrics_directory() -> Iterator[Path]:
    """A new one, and without those that nobody uses any more. Raises OSError."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_unused(left)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(used(directory))
            except FileNotFoundError:
                continue  # another parent took it for one that nobody uses
            if directory.exists():
                yield directory
                return


@contextlib.contextmanager
def used(directory: Path) -> Iterator[None]:
    """While the context is open, nobody removes the directory. Raises OSError if there is none."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield
    finally:
        os.close(held)
        _remove_unused(directory)


def forget_worker(directory: Path, pid: int) -> None:
    """Removes the gauges of a process that has ended; its counters go on counting."""
    multiprocess.mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def _remove_unused(directory: Path) -> None:
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # it is gone, or another user's
    try:
        if os.fstat(held).st_uid == os.getuid():
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        pass  # somebody uses it
    finally:
        os.close(held)
