"""Commands in a terminal of their own, as a reader of the documents would run them."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.servers import PATIENCE, eventually

FOLLOWS = re.compile(r"curl -s?S?N|bridge (up|tail|listen|simulate)|SUBSCRIBE|python \w+\.py")
"""Commands that go on until somebody ends them."""


class Terminal:
    """One command in bash; it takes over the variables in `variables`, and leaves there those that it sets."""

    def __init__(self, command: str, directory: Path, environ: Mapping[str, str], variables: Path) -> None:
        self.follows = FOLLOWS.search(command) is not None
        kept = shlex.quote(str(variables))
        script = f"[ ! -f {kept} ] || . {kept}\nset -a\n{command}\n"
        if not self.follows:
            script += f"ended=$?; declare -x -p >{kept}; exit $ended"
        self._ours, theirs = os.openpty()
        # Wide enough for a line of JSON: no command breaks or cuts it.
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 2000, 0, 0))
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script],
            cwd=directory,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._printed = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._ours, 65536)
            except OSError:  # what a terminal answers whose other side is closed
                return
            if not some:
                return
            self._printed += some

    @property
    def output(self) -> str:
        """Whole lines."""
        text = self._printed.decode(errors="replace")
        return text[: text.rfind("\n") + 1] if self.runs else text

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def ends(self) -> int:
        """Waits for the end and returns the exit status."""
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def waits(self, holds: Callable[[str], bool]) -> None:
        """Until it holds of the output; AssertionError if it never does."""
        asked = ""

        def held() -> bool:
            nonlocal asked
            ended, printed = not self.runs, self.output
            if printed == asked:
                return ended
            asked = printed
            return holds(printed) or ended

        eventually(held, "what the page shows")
        self._reader.join(0 if self.runs else PATIENCE)
        assert holds(self.output), "it ended"

    def close(self) -> None:
        """As ctrl-C does."""
        if self.runs:
            os.killpg(self._process.pid, signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(PATIENCE)
        os.close(self._ours)


def install(directory: Path, server: Path) -> None:
    """`bridge` and `python` as commands of the fork server."""
    for name in ("bridge", "python"):
        file = directory / name
        script = f'exec {sys.executable} -I -S {Path(__file__).with_name("fork_server.py")} call {server} "$0" "$@"\n'
        file.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
        file.chmod(0o755)
