"""A bridge for one rehearsal: Redis, the simulator, each role as a process that Prometheus scrapes, a receiver."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from bridge.sealing import new_key
from tests.alerts.waiting import until
from tests.commands import Command, running
from tests.servers import RealServer, free_port
from tests.threaded_receiver import Post, Reply, receiving_posts

CVMS = 7
"""Two more than there are slots."""

KEY = "phak_good"


class Stage:
    """`name` is the label `namespace` of all that Prometheus sees of it. Blocking; owned by one thread."""

    def __init__(self, name: str, home: Path, targets: Path, server: RealServer) -> None:
        self.home = home
        self.server = server
        self.secret_key = new_key()
        self.url = f"http://127.0.0.1:{free_port()}"
        self.status = 204
        """The receiver's."""
        self.answers = threading.Event()
        """Cleared, it answers nothing."""
        self.answers.set()
        self.commands: dict[str, Command] = {}
        self._name, self._targets = name, targets
        self._probes: dict[str, int] = {}
        self.simulator = Command(home, "simulate", "--port", "0", "--cvms", str(CVMS), "--seed", "7")
        self.prefix = self.simulator.shows(r"PHALA_CLOUD_API_PREFIX=(\S+)")
        self.control("PATCH", "/settings", frozen=True, instant=True, keys={KEY: "demo"}, operations=False)
        self.http = httpx.Client(base_url=self.url, timeout=30)

    # The bridge

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(Path.cwd()),  # a fork of a process that imported every role has the metrics of all roles
            "REDIS_URL": self.server.url,
            "PHALA_CLOUD_API_PREFIX": self.prefix,
            "PHALA_CLOUD_API_KEY": KEY,
            "BRIDGE_CVMS": "*",
            "BRIDGE_LEASE_SECONDS": "5",
            "BRIDGE_POLL_INTERVAL": "1",
            "BRIDGE_STREAM_TIMEOUT": "10",
            "BRIDGE_SECRET_KEY": self.secret_key,
            "BRIDGE_WEBHOOK_ALLOW": "127.0.0.0/8",
            "BRIDGE_AUTH": "off",
            "HOST": "127.0.0.1",
            "PORT": self.url.rpartition(":")[2],
        }

    def start(self, role: str, *, files: int = 0, **environment: str) -> None:
        """`role` may have a number, as `dispatcher 2`. Started again, it has the port for Prometheus that it had.
        `files`: how many it may open.
        """
        probe = self._probes.setdefault(role, free_port())
        self._announce()
        given = {**self.environment, "BRIDGE_PROBE_PORT": str(probe), **environment}
        name = role.split(maxsplit=1)[0]
        limited = ("-c", f"ulimit -n {files}; exec {sys.executable} -m bridge {name}")
        self.commands[role] = (
            Command(self.home, *limited, program="/bin/sh", **given) if files else Command(self.home, name, **given)
        )

    def start_all(self, **environment: Any) -> None:
        """Returns when every role is ready, and every CVM was seen."""
        for role in ("upstream", "web", "dispatcher"):
            self.start(role, **environment)
        self.until_well()

    def until_well(self) -> None:
        for role in self.commands:
            until(lambda role=role: self.ready(role).get("status") == "ready", f"{role} is ready")  # type: ignore[misc]
        until(lambda: len([each for each in self.cvms() if each["fresh"]]) == CVMS, "every CVM is seen")

    def ready(self, role: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self._probes[role]}/readyz", timeout=5).json()
        except httpx.TransportError:
            return {}
        return found

    def metric(self, role: str, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self._probes[role]}/metrics", timeout=5).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def end(self, role: str, number: signal.Signals = signal.SIGTERM) -> None:
        self.commands.pop(role).ends(number)

    def restart(self, role: str, *, files: int = 0, **environment: str) -> None:
        self.end(role)
        self.start(role, files=files, **environment)

    def run(self, *arguments: str, **environment: str) -> str:
        """The output of a command that ends by itself."""
        command = Command(self.home, *arguments, **{**self.environment, **environment})
        command.ends()
        return command.output + command.errors

    def cvms(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/v1/cvms")["items"]
        return found

    def ask(self, method: str, path: str, **given: Any) -> Any:
        answer = self.http.request(method, path, **given)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    # Around it

    def control(self, method: str, path: str, **body: Any) -> Any:
        base = self.prefix.removesuffix("/api/v1")
        answer = httpx.request(method, f"{base}/control{path}", json=body or None, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()

    def change(self, *numbers: int, status: str = "", **changes: Any) -> None:
        """Of these CVMs, all without one: running becomes stopped, and so on."""
        cvms = self.control("GET", "/cvms")["items"]
        for number in numbers or range(len(cvms)):
            other = status or ("stopped" if cvms[number]["status"] == "running" else "running")
            self.control("PATCH", f"/cvms/{cvms[number]['vm_uuid']}", status=other, push=True, **changes)

    def register(self, receiver: str, **fields: Any) -> str:
        """An endpoint at this receiver; its id."""
        return str(self.ask("POST", "/v1/webhooks", json={"url": receiver, **fields})["id"])

    @contextlib.contextmanager
    def receiving(self) -> Iterator[str]:
        """The URL of a receiver."""

        def answer(post: Post) -> Reply:
            self.answers.wait()
            return Reply(self.status)

        with receiving_posts(answer) as url:
            try:
                yield url
            finally:
                self.answers.set()

    def _announce(self) -> None:
        """Tells Prometheus what there is to scrape."""
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": self._name, "role": role.split()[0]}}
            for role, port in self._probes.items()
        ]
        written = self._targets / f"{self._name}.new"
        written.write_text(json.dumps(groups))
        written.rename(written.with_suffix(".json"))

    def close(self) -> None:
        (self._targets / f"{self._name}.json").unlink(missing_ok=True)
        for command in [*self.commands.values(), self.simulator]:
            if command in running:
                command.process.send_signal(signal.SIGCONT)
                command.ends(signal.SIGKILL)
        self.http.close()
