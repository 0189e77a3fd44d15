"""The bridge with the rights in Redis that docs/contract.md gives it, and no others."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.check import run_check
from bridge.config import Settings
from bridge.sealing import new_key
from bridge.store.rights import rights
from tests.bridges import whole
from tests.commands import Command
from tests.servers import Guarded, RealServer, cluster, eventually, free_port, guarded

#: What redis-py tells a server about itself, if it may.
OPTIONAL = {"client|setinfo", "client|maint_notifications", "client"}


def documented() -> list[str]:
    """The contract's command, in words."""
    return " ".join(rights("bridge", "bridge", cluster=True, new=True)).split()


def grant(server: RealServer) -> None:
    """Makes the contract's user."""
    server.call(*documented())


def denied(server: RealServer) -> set[str]:
    """The commands, keys and channels that the user was refused."""
    entries: list[Any] = server.call("ACL", "LOG")
    found = [dict(zip(entry[::2], entry[1::2], strict=True)) if isinstance(entry, list) else entry for entry in entries]
    return {str(entry["object"]) for entry in found} - OPTIONAL


@contextlib.contextmanager
def procfile(home: Path, **environment: str) -> Iterator[Command]:
    """The roles of the Procfile, run by honcho; their output is honcho's."""
    scripts = Path(sys.executable).parent
    path = f"{scripts}:{os.environ['PATH']}"
    runner = Command(
        home,
        "start",
        "--procfile",
        str(Path("Procfile").absolute()),
        program=str(scripts / "honcho"),
        PATH=path,
        **environment,
    )
    try:
        yield runner
    finally:  # killed, it would leave the roles behind
        runner.ends(signal.SIGTERM)


def test_the_procfile_and_the_check_run_with_the_documented_rights(tmp_path: Path, own_server: RealServer) -> None:
    grant(own_server)
    redis, port = {"REDIS_URL": f"redis://bridge:password@127.0.0.1:{own_server.port}/0"}, str(free_port())
    simulator = Command(tmp_path, "simulate", "--port", "0", "--cvms", "7")
    prefix = simulator.shows(r"PHALA_CLOUD_API_PREFIX=(\S+)")
    upstream = {"PHALA_CLOUD_API_KEY": "k", "PHALA_CLOUD_API_PREFIX": prefix, "BRIDGE_CVMS": "*"}
    sending = {"BRIDGE_SECRET_KEY": new_key(), "BRIDGE_WEBHOOK_ALLOW": "127.0.0.0/8"}
    front = {"BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": port}
    with procfile(tmp_path, **redis, **upstream, **sending, **front) as roles:
        address = roles.shows(rf"(http://127.0.0.1:{port})")
        listener = Command(tmp_path, "listen", "--url", address)
        eventually(lambda: len(listener.out) >= 1, f"a delivery: {listener.errors}")
        check = Command(tmp_path, "check", **redis, **upstream)
        assert check.ends() == 0, check.output
        assert re.search(r"ok +(Redis|Valkey) \d+\.\d+", check.output)
        assert listener.ends(signal.SIGTERM) == 0, listener.errors
    assert roles.output.count("stopped (rc=0)") == 3, roles.output
    assert simulator.ends(signal.SIGTERM) == 0
    assert "Redis refused" not in roles.output
    assert denied(own_server) == set()


@pytest.mark.parametrize("form", ["sentinel", "cluster"])
async def test_a_bridge_runs_with_the_documented_rights_behind_sentinels_and_in_a_cluster(form: str) -> None:
    with contextlib.ExitStack() as stack:
        if form == "cluster":
            server = stack.enter_context(cluster())
            url = f"redis+cluster://bridge:password@127.0.0.1:{server.port}"
        else:
            trio: Guarded = stack.enter_context(guarded())
            server, url = trio.primary, trio.url.replace("://", "://bridge:password@")
        grant(server)
        async with whole(url, cvms=2) as bridge:
            await bridge.until_seen(2)
            assert re.match(r"(Redis|Valkey) \d", await bridge.backend.version())
        assert denied(server) == set()


async def test_a_user_without_rights_works_once_the_check_s_own_line_is_typed(redis_server: RealServer) -> None:
    redis_server.call("ACL", "SETUSER", "weak", "on", ">password", "~other:*", "+get")
    settings = Settings(redis_url=redis_server.url.replace("://", "://weak:password@"))
    shown: list[str] = []
    try:
        assert not await run_check(settings, shown.append)
        told = "\n".join(shown)
        command = told[told.index("ACL SETUSER weak") : told.index("\nUpstream")].split()
        redis_server.call(*command)
        assert await run_check(settings, shown.append), "\n".join(shown)
    finally:
        redis_server.call("ACL", "DELUSER", "weak")


def test_every_command_of_the_scripts_is_among_the_documented_rights(redis_server: RealServer) -> None:
    words = documented()
    named = {word[1:].upper() for word in words if re.match(r"\+[a-z]", word)}
    granted = [redis_server.call("ACL", "CAT", word[2:]) for word in words if word.startswith("+@")]
    dangerous = redis_server.call("ACL", "CAT", "dangerous")
    # A command with subcommands is listed as "xinfo|stream".
    allowed = {name.partition("|")[0].upper() for name in itertools.chain(*granted) if name not in dangerous}
    scripts = "".join(path.read_text() for path in Path("bridge/store/scripts").glob("*.lua"))
    assert set(re.findall(r"call\('([A-Z]+)'", scripts)) <= allowed | named
