"""Each variable that an install file or the page about them names, in a comment or a value, is one of the bridge's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.config import file_variables, variables

FILES = sorted(path for path in Path("deploy").rglob("*.*") if path.is_file())
FILES += [Path("deploy/Dockerfile"), Path("Procfile"), Path("docs/install.md")]

VARIABLE = re.compile(r"\b(?:(?:BRIDGE|PHALA)_[A-Z_]+|REDIS_URL\w*)\b")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_variable_is_a_setting(path: Path) -> None:
    assert set(VARIABLE.findall(path.read_text())) <= {*variables().values(), *file_variables().values()}
