"""`deploy/systemd`, read by systemd's own tools in a root directory that has these units and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.reading import assert_accepted
from tests.servers import PATIENCE

ROLES = ("web", "upstream", "dispatcher")

#: systemd's own, which the units need.
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    units, program = tmp_path / "etc/systemd/system", tmp_path / "opt/bridge/bin/bridge"
    (units / "bridge-.service.d").mkdir(parents=True)
    for path in Path("deploy/systemd").rglob("*.*"):
        if path.is_file():
            (units / path.relative_to("deploy/systemd")).write_text(path.read_text())
    for target in TARGETS:
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def systemd(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_systemd_finds_no_fault_and_little_exposure(root: Path, role: str) -> None:
    unit = f"bridge-{role}.service"
    assert systemd("systemd-analyze", "verify", f"--root={root}", unit) == ""
    # 0 to 100, of which the network alone, without which there is no bridge, is 10.
    systemd("systemd-analyze", "security", "--no-pager", "--offline=true", f"--root={root}", "--threshold=15", unit)
    systemd("systemctl", f"--root={root}", "enable", unit)
    assert (root / "etc/systemd/system/multi-user.target.wants" / unit).is_symlink()


@pytest.mark.parametrize("role", ROLES)
def test_each_role_runs_its_command_with_settings_that_the_bridge_has(root: Path, role: str, tmp_path: Path) -> None:
    units = root / "etc/systemd/system"
    text = (units / "bridge-.service.d/every-role.conf").read_text() + (units / f"bridge-{role}.service").read_text()
    assert f"\nExecStart=/opt/bridge/bin/bridge {role}\n" in text
    environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    assert_accepted(environment, tmp_path)
    files = {f"%d/{name}" for name in re.findall(r"^LoadCredential=(\w+):/etc/bridge/\1$", text, re.MULTILINE)}
    assert files == {value for name, value in environment.items() if name.endswith("_FILE")}
