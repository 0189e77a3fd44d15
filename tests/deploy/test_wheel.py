"""The wheel, as `pipx install` or `uv tool install` would put it into an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import hatchling.build

from bridge import __version__
from tests.deploy.reading import tool
from tests.servers import PATIENCE


def output(folder: Path, *command: str | Path) -> str:
    return subprocess.run(
        command, cwd=folder, env={}, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


def test_the_wheel_brings_everything_of_the_package_and_its_command(tmp_path: Path) -> None:
    wheel = tmp_path / hatchling.build.build_wheel(str(tmp_path))
    # All files of the folder, the scripts and pages among them, and nothing beside the package.
    assert tool("check-wheel-contents", "--package", "bridge", str(wheel)) == f"{wheel}: OK\n"

    home = tmp_path / "home"
    venv.create(home)
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--python", home / "bin/python")
    output(tmp_path, sys.executable, *pip, "install", "--no-deps", "--no-index", "--no-compile", wheel)
    # No index is asked for what the bridge needs; it is here already. The bridge itself is not: an editable install has
    # no folder there.
    packages = sysconfig.get_path("purelib")
    within = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(within, "needed.pth").write_text(f"{packages}\n")
    assert not Path(packages, "bridge").exists()
    assert output(tmp_path, home / "bin/bridge", "--version") == f"bridge, version {__version__}\n"
