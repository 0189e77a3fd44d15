"""`bridge dispatcher` on a machine with few open files, where receivers' names are answered late, wrongly or never."""

from __future__ import annotations

import os
import random
import resource
import socket
import time
from pathlib import Path
from typing import Any

from bridge.commands.cli import main

FILES = "HOSTILE_FILES"
"""How many files it may open; absent: as many as here."""

HEALED = "HOSTILE_HEALED"
"""Names a file; once it is there, every name is answered."""

HOSTILE, NEIGHBOUR = ".hostile.test", ".neighbour.test"

ask_system = socket.getaddrinfo


def ask(host: Any, *rest: Any, **given: Any) -> Any:
    """Half of the lookups of a hostile name end after seconds without an answer, some with a forbidden address."""
    if str(host).endswith(NEIGHBOUR):
        time.sleep(0.02)
        host = "127.0.0.1"
    elif str(host).endswith(HOSTILE):
        luck = 1.0 if Path(os.environ[HEALED]).exists() else random.random()
        if luck < 0.5:
            time.sleep(random.uniform(5, 30))
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        host = "169.254.169.254" if luck < 0.55 else "127.0.0.1"
    return ask_system(host, *rest, **given)


if __name__ == "__main__":
    if FILES in os.environ:
        most = int(os.environ[FILES])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    socket.getaddrinfo = ask
    main(["dispatcher"], prog_name="bridge")
