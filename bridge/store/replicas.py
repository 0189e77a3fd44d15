"""Writes that replicas of Redis confirm: a promoted replica must not lack a slot or a lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions as errors
from redis.asyncio.cluster import RedisCluster

from bridge.store.connection import Backend, Script


@dataclass(frozen=True, slots=True)
class Copies:
    """Who else has a write. None: Redis was not asked, or does not tell (it needs the rights `wait` and `info`)."""

    confirmed: int | None = None
    """Replicas that have the write."""
    connected: int | None = None
    """Replicas that follow the primary."""
    server: str = ""
    """Names the primary's history; a promoted replica begins another one."""
    guarded: bool = False
    """Whether `min-replicas-to-write` is set: a primary that was cut off then refuses writes by itself."""


async def read_copies(backend: Backend) -> Copies:
    """Of no write. Raises StoreError."""
    (told,) = await backend.call(_pipeline(backend, [("INFO", "replication")]))
    return _copies(None, told)


async def run_copied(
    backend: Backend, script: Script, keys: Sequence[str], args: Sequence[object], wait_ms: int
) -> tuple[Any, Copies]:
    """Runs a script as `Backend.run` does, and waits up to `wait_ms` (0: not at all) until a replica has its writes."""
    return await backend.call(_run(backend, script, keys, args, wait_ms))


async def _run(
    backend: Backend, script: Script, keys: Sequence[str], args: Sequence[object], wait_ms: int
) -> tuple[Any, Copies]:
    # WAIT counts the writes of its own connection, so that it goes into one pipeline with the script.
    after: list[tuple[object, ...]] = [("WAIT", 1, wait_ms)] if wait_ms else []
    after.append(("INFO", "replication"))
    answers = await _pipeline(backend, [("EVALSHA", script.sha, len(keys), *keys, *args), *after])
    if isinstance(answers[0], errors.NoScriptError):
        answers = await _pipeline(backend, [("EVAL", script.text, len(keys), *keys, *args), *after])
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0], _copies(answers[1] if wait_ms else None, answers[-1])


async def _pipeline(backend: Backend, commands: Sequence[tuple[object, ...]]) -> list[Any]:
    client = backend.client
    await client.initialize()
    target = {"target_nodes": client.get_node_from_key(backend.keys.leader)} if isinstance(client, RedisCluster) else {}
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command, **({} if command[0] in ("EVAL", "EVALSHA") else target))
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers


def _copies(confirmed: object, told: object) -> Copies:
    if not isinstance(told, dict) or told.get("role") != "master":
        return Copies(confirmed if isinstance(confirmed, int) else None)
    replicas = [each for name, each in told.items() if str(name).startswith("slave") and isinstance(each, dict)]
    return Copies(
        confirmed if isinstance(confirmed, int) else None,
        sum(each.get("state") == "online" for each in replicas),
        str(told.get("master_replid", "")),
        "min_slaves_good_slaves" in told,
    )
