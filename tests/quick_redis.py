"""fakeredis with a shorter way from a command to its answer: tests in virtual time send hundreds of thousands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import fakeredis
import fakeredis.commands_mixins.scripting_mixin as scripting
from redis.asyncio.client import Pipeline
from redis.client import NEVER_DECODE
from redis.exceptions import ResponseError


class QuickRuntime(scripting.LUA_MODULE.LuaRuntime):  # type: ignore[misc, name-defined]
    """Compiles each script once, and leaves Lua's garbage to Lua."""

    def execute(self, code: bytes | str, *arguments: Any) -> Any:
        if code == "collectgarbage()":
            return None
        known = self.__dict__.setdefault("compiled", {})
        if code not in known:
            known[code] = self.compile(code)
            self.eval(GUARD)
        return known[code](*arguments)


GUARD = """
setmetatable(_G, {__newindex = function(_, name) error('Script attempted to create global variable ' .. name, 2) end})
"""
"""Real servers refuse new global variables so."""


class QuickRedis(fakeredis.FakeAsyncRedis):
    """Commands go to the fake server as they are, neither packed into bytes nor on a connection of their own.

    Where none is open yet or the server is out of reach, they go redis-py's way. Blocking commands have no other. On
    the way there and on the way back others have their turn, or may cancel it: tests of races need that.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        connection = idle_connection(self.connection_pool)
        if connection is None or NEVER_DECODE in options:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        answer = asked(connection, args)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return parsed(self.response_callbacks, args, options, answer)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return QuickPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class QuickPipeline(Pipeline):
    """Nothing runs between its commands, be it a transaction or not."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        await asyncio.sleep(0)
        connection, stack = idle_connection(self.connection_pool), self.command_stack
        if connection is None or self.watching:
            return await super().execute(raise_on_error)
        await self.reset()  # type: ignore[no-untyped-call]
        answers = [asked(connection, args) for args, _ in stack]
        await asyncio.sleep(0)
        if raise_on_error:
            self.raise_first_error(stack, answers)
        return [
            answer if isinstance(answer, ResponseError) else parsed(self.response_callbacks, args, options, answer)
            for (args, options), answer in zip(stack, answers, strict=True)
        ]


def idle_connection(pool: Any) -> Any:
    """One that is open and that nobody uses, or None. It may be used until the next await."""
    idle = pool._available_connections
    if not idle:
        return None
    connection = idle[-1]
    socket = getattr(connection, "_sock", None)
    return connection if socket and not socket._killed and connection._server.connected else None


def asked(connection: Any, args: Sequence[Any]) -> Any:
    """The server's answer, an exception too."""
    encode = connection.encoder.encode
    texts = (each.encode("utf-8", "replace") if type(each) is str else encode(each) for each in args[1:])
    fields = [*args[0].encode().split(), *texts]
    connection._sock._process_command(fields)
    return connection._decode(connection._sock.responses.get_nowait())


def parsed(callbacks: Any, args: Sequence[Any], options: Mapping[str, Any], answer: Any) -> Any:
    """As redis-py makes it of an answer."""
    given = {name: value for name, value in options.items() if name != "keys"}  # that is for its cache
    return callbacks[args[0]](answer, **given) if args[0] in callbacks else answer


scripting.LUA_MODULE.LuaRuntime = QuickRuntime  # type: ignore[attr-defined]
scripting._check_for_lua_globals = lambda *_: None  # GUARD does it
