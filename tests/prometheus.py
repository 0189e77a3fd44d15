"""A real Prometheus, and its promtool.

Nothing is skipped where they are missing: `make test` installs them. As a command, this exits with 1 if one is missing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers import PATIENCE, eventually, free_port

NAMES = ("prometheus", "promtool")


def find(name: str) -> str | None:
    return shutil.which(str(Path(sys.executable).with_name(name))) or shutil.which(name)


def promtool(*arguments: str, given: str = "") -> str:
    """What it prints. It must find no fault."""
    program = find("promtool")
    assert program, "promtool is missing: `make test` installs it"
    command = [program, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass
class Prometheus:
    http: httpx.Client

    def get(self, path: str, **query: str) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, text: str) -> bool:
        """Whether it has an answer. It must be one that Prometheus can read."""
        return bool(self.get("query", query=text)["result"])


@contextmanager
def prometheus(home: Path, rules: Path, scraped: Mapping[str, Any], every: float = 0.5) -> Iterator[Prometheus]:
    """One that looks at what `scraped` names (of a scrape configuration) and at the rules `every` so many seconds."""
    program, port = find("prometheus"), free_port()
    assert program, "Prometheus is missing: `make test` installs it"
    interval = f"{round(every * 1000)}ms"
    settings = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(rules.absolute())],
        "scrape_configs": [{"job_name": "bridge", **scraped}],
    }
    (home / "prometheus.json").write_text(json.dumps(settings))  # JSON is YAML
    command = [program, f"--config.file={home}/prometheus.json", f"--storage.tsdb.path={home}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as http,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
    ):
        try:
            made = Prometheus(http)

            def answers() -> bool:
                assert process.poll() is None, f"Prometheus ended with {process.returncode}"
                try:
                    return made.query("vector(1)")
                except (httpx.TransportError, AssertionError):
                    return False

            eventually(answers, "Prometheus answers")
            yield made
        finally:
            process.terminate()
            process.wait(PATIENCE)


if __name__ == "__main__":
    sys.exit(not all(map(find, NAMES)))
