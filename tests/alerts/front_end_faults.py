"""Faults of front ends and their machines."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.alerts.play import Rehearsal
from tests.alerts.stage import Stage
from tests.alerts.waiting import until
from tests.real.tls import OfFront
from tests.servers import RealServer

SHIFT = """
import os, time
_time, _path = time.time, os.environ["SHIFTED_BY"]
time.time = lambda: _time() + (5 if os.path.exists(_path) else 0)
"""


def connect(stage: Stage, path: str) -> socket.socket:
    """Sends a request, and reads nothing."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", int(stage.url.rpartition(":")[2])))
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
    return made


def slow_subscribers(stage: Stage) -> Generator[None, None, None]:
    with contextlib.ExitStack() as stack:
        stage.start_all(BRIDGE_SUBSCRIBER_BUFFER="1024")
        yield
        for path in ["/v1/events?snapshot=0"] * 15:
            stack.enter_context(connect(stage, path))
        until(lambda: stage.metric("web", "bridge_subscribers ") == 15, "subscribers")
        for _ in range(8):
            stage.change(set={"padding": "x" * 100_000})
        until(lambda: stage.metric("web", "bridge_slow_subscribers_total") > 10, "cuts")
        yield
        for path in ["/v1/events?snapshot=0&type=cvm.readiness"] * 15:
            stack.enter_context(connect(stage, path))
        for _ in range(8):
            stage.change(set={"padding": "x" * 100_000})
        yield


def front_end_full(stage: Stage) -> Generator[None, None, None]:
    with contextlib.ExitStack() as stack:
        stage.start_all(BRIDGE_MAX_SUBSCRIBERS="20")
        yield
        for path in ["/v1/events?snapshot=0"] * 25:
            stack.enter_context(connect(stage, path))
        yield
        stage.restart("web")
        until(lambda: stage.ready("web").get("status") == "ready", "the front end")
        for path in ["/v1/events?snapshot=0"] * 25:
            stack.enter_context(connect(stage, path))
        yield


def another_redis(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    with RealServer(tcp=True) as other:
        yield
        stage.restart("web", REDIS_URL=other.url)
        for _ in range(3):
            stage.change()
        yield
        stage.restart("web")
        yield


def replica_behind(stage: Stage) -> Generator[None, None, None]:
    """The front end reads a replica that no longer hears its primary."""
    stage.start_all()
    with RealServer(tcp=True, options={"replicaof": f"127.0.0.1 {stage.server.port}"}) as replica:
        until(lambda: replica.call("EXISTS", "{bridge}:log") == 1, "the replica")
        yield
        replica.call("REPLICAOF", "NO", "ONE")
        stage.restart("web", REDIS_URL=replica.url)
        for _ in range(3):
            stage.change()
        yield
        stage.restart("web")
        yield


def tokens_broken(stage: Stage) -> Generator[None, None, None]:
    path = stage.home / "tokens"
    path.write_text("me:0123456789abcdef0123456789abcdef:admin")
    stage.http.headers["Authorization"] = "Bearer 0123456789abcdef0123456789abcdef"
    stage.start_all(BRIDGE_TOKENS_FILE=str(path), BRIDGE_AUTH="on")
    yield
    path.write_text("me")
    yield
    path.write_text("me:0123456789abcdef0123456789abcdef:admin you:fedcba9876543210fedcba9876543210:read")
    yield


def certificate_broken(stage: Stage) -> Generator[None, None, None]:
    issued = OfFront(stage.home)
    files: dict[str, Any] = {**issued.settings}
    stage.start_all()
    stage.start("web 2", PORT="0", **files)
    stage.until_well()
    yield
    issued.renew(key=False)
    yield
    issued.renew()


def few_files(stage: Stage) -> Generator[None, None, None]:
    with contextlib.ExitStack() as stack:
        stage.start_all()
        yield
        stage.restart("web", files=150)
        until(lambda: stage.ready("web").get("status") == "ready", "the front end")
        for _ in range(140):
            with contextlib.suppress(OSError):
                stack.enter_context(connect(stage, "/v1/events?snapshot=0"))
        yield
        stage.restart("web")
        yield


def clock_ahead(stage: Stage) -> Generator[None, None, None]:
    modules, wrong = stage.home / "shift", stage.home / "wrong"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(SHIFT)
    stage.start_all(PYTHONPATH=f"{modules}{os.pathsep}{Path.cwd()}", SHIFTED_BY=str(wrong))
    yield
    wrong.touch()
    yield
    wrong.unlink()
    yield


FRONT_END = [
    Rehearsal(
        alert="BridgeSubscribersCut",
        broken="15 subscribers take nothing",
        mended="they ask for fewer types",
        steps=slow_subscribers,
    ),
    Rehearsal(
        alert="BridgeFrontEndFull",
        broken="25 subscribers, `BRIDGE_MAX_SUBSCRIBERS=20`",
        mended="restart with the default",
        steps=front_end_full,
    ),
    Rehearsal(
        alert="BridgeFrontEndBehind",
        broken="a front end has another Redis",
        mended="it has the leader's",
        steps=another_redis,
    ),
    Rehearsal(
        alert="BridgeFrontEndBehind",
        broken="a front end reads a replica that is behind",
        mended="it reads the primary",
        steps=replica_behind,
    ),
    Rehearsal(
        alert="BridgeTokensFileBroken", broken="half of the file is written", mended="all of it is", steps=tokens_broken
    ),
    Rehearsal(
        alert="BridgeCertificateBroken",
        broken="a certificate is renewed without its key",
        mended="both are renewed",
        steps=certificate_broken,
    ),
    Rehearsal(
        alert="BridgeOutOfFiles",
        broken="140 subscribers of a front end with 150 files",
        mended="restart with a higher limit",
        steps=few_files,
        beside=("BridgeFrontEndFull",),
    ),
    Rehearsal(
        alert="BridgeClockSkew",
        broken="the clock of a machine is set 5 s ahead",
        mended="it is set right",
        steps=clock_ahead,
    ),
]
