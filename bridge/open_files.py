"""The limit of open files, which bounds how many connections a process may have."""

from __future__ import annotations

import contextlib
import resource
import sys

OWN_FILES = 100
"""Open files that no connection to clients or receivers may take: listeners, connections to Redis, logs."""


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one; returns the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    with contextlib.suppress(ValueError, OSError):  # some systems report a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
