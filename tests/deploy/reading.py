"""How tests read the files of `deploy/`: by the programs that they are for, and by the bridge's own settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.config import file_variables, load_settings, variables
from bridge.sealing import new_key
from tests.servers import PATIENCE

CONTENT = {
    "PHALA_CLOUD_API_KEY": "phak_example",
    "REDIS_URL": "rediss://bridge:password@redis:6379/0",
    "BRIDGE_TOKENS": "me:0123456789abcdef0123456789abcdef:admin",
    "BRIDGE_SECRET_KEY": new_key(),
}
"""What the files hold that `…_FILE` names."""


def tool(name: str, *arguments: str, **environment: str) -> str:
    """The output of a program of `.venv`, which must be content."""
    program = Path(sys.executable).parent / name
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def assert_accepted(environment: Mapping[str, str], folder: Path) -> None:
    """Each variable is a setting of the bridge, and the bridge starts with all of them."""
    files = {file: name for name, file in file_variables().items()}
    assert set(environment) <= {*variables().values(), *files}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        for variable in environment.keys() & files:
            path = folder / variable
            path.write_text(CONTENT[files[variable]])
            patch.setenv(variable, str(path))
        assert load_settings(None).warnings == ()
