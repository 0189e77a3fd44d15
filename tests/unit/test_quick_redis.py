"""The short way to the fake server gives the answers of the long one."""

from __future__ import annotations

import asyncio
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as OutOfReachError
from redis.exceptions import NoScriptError, ResponseError

from tests.fakes import fake_client

COMMANDS: list[tuple[Any, ...]] = [
    ("SET", "text", b"\xff and \xc3\xa4"),
    ("GET", "text"),
    ("HSET", "hash", "a", 1, "b", 2.5),
    ("HGETALL", "hash"),
    ("HGETALL", "nothing"),
    ("LPUSH", "text", "x"),
    ("NOSUCH", "command"),
    ("GET",),
    ("ZADD", "ranks", 1.5, "m"),
    ("ZRANGE", "ranks", 0, -1, "WITHSCORES"),
    ("SADD", "set", "one"),
    ("SMEMBERS", "set"),
    ("XADD", "stream", "5-1", "field", "value"),
    ("XRANGE", "stream", "-", "+"),
    ("SCRIPT EXISTS", "0" * 40),
    ("EVALSHA", "0" * 40, 0),
    ("EVAL", "return {KEYS[1], ARGV[1], 7, false, redis.call('GET', 'none')}", 1, "k", "v"),
    ("INFO", "replication"),  # fakeredis has none
]


async def answer(client: Any, command: tuple[Any, ...]) -> Any:
    try:
        return await client.execute_command(*command)
    except ResponseError as error:
        return type(error), str(error)


async def together(client: fakeredis.FakeAsyncRedis, *, transaction: bool) -> list[Any]:
    async with client.pipeline(transaction=transaction) as pipe:
        for command in COMMANDS:
            if command[0] not in ("NOSUCH", "INFO") and len(command) > 1:  # a transaction with the others does nothing
                pipe.execute_command(*command)
        answers = await pipe.execute(raise_on_error=False)
    return [(type(each), str(each)) if isinstance(each, ResponseError) else each for each in answers]


async def test_each_command_has_the_answer_of_the_long_way_alone_and_in_a_pipeline() -> None:
    quick = fake_client()
    plain = fakeredis.FakeAsyncRedis(decode_responses=True, encoding_errors="replace", socket_timeout=None)
    for client in (quick, plain):
        await client.ping()  # a connection is open
    assert [await answer(quick, each) for each in COMMANDS] == [await answer(plain, each) for each in COMMANDS]
    for transaction in (True, False):
        for client in (quick, plain):
            await client.flushall()
        assert await together(quick, transaction=transaction) == await together(plain, transaction=transaction)
    for client in (quick, plain):
        await client.aclose()


async def test_errors_are_raised_as_redis_py_raises_them() -> None:
    server = fakeredis.FakeServer()
    client = fake_client(server)
    await client.set("text", "x")
    with pytest.raises(NoScriptError):
        await client.evalsha("0" * 40, 0)
    with pytest.raises(ResponseError, match="global variable"):
        await client.eval("leaked = 1", 0)
    async with client.pipeline() as pipe:
        pipe.lpush("text", "y")
        with pytest.raises(ResponseError, match="Command # 1"):
            await pipe.execute()
    server.connected = False
    with pytest.raises(OutOfReachError):
        await client.get("text")
    await client.aclose()


async def test_others_have_their_turn_on_a_commands_way_and_it_may_be_canceled_on_its_way_back() -> None:
    client: Any = fake_client()
    await client.set("n", 0)

    async def add() -> None:
        await client.set("n", int(await client.get("n")) + 1)

    await asyncio.gather(add(), add())
    assert await client.get("n") == "1"
    pipe = client.pipeline()
    pipe.execute_command("INCR", "n")
    for command in (client.execute_command("INCR", "n"), pipe.execute()):
        running = asyncio.create_task(command)
        for _ in range(2):
            await asyncio.sleep(0)
        running.cancel()
        assert isinstance(*await asyncio.gather(running, return_exceptions=True), asyncio.CancelledError)
    assert await client.get("n") == "3"
    await client.aclose()
