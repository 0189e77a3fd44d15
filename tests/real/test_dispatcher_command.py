"""`bridge dispatcher` as a process: required settings, probes, end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bridge.sealing import new_key
from tests.probes import status
from tests.prometheus import promtool
from tests.servers import RealServer, eventually, free_port


@contextmanager
def dispatcher(**environment: str) -> Iterator[subprocess.Popen[str]]:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), "PYTHONWARNINGS": "error", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "dispatcher"], env=given, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_without_a_key_it_ends_with_one_line() -> None:
    with dispatcher(REDIS_URL="redis://127.0.0.1:1/0") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.startswith("BRIDGE_SECRET_KEY is not set")
    assert errors.count("\n") == 1


def test_it_waits_for_redis_then_is_ready_and_ends_cleanly() -> None:
    server, port = RealServer(tcp=True), free_port()
    with dispatcher(REDIS_URL=server.url, BRIDGE_SECRET_KEY=new_key(), BRIDGE_PROBE_PORT=str(port)) as process:
        eventually(lambda: status(f"http://127.0.0.1:{port}/readyz") == 503, "alive without Redis")
        with server:
            eventually(lambda: status(f"http://127.0.0.1:{port}/readyz") == 200, "ready with Redis")
            page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            assert "bridge_webhook_in_flight" in page
            assert promtool("check", "metrics", given=page) == ""
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
