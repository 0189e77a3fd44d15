"""The hostile receivers, in a process of their own; `GET` asks them to heal and tells what they did."""

from __future__ import annotations

import asyncio
import json
import random
import sys

from tests.hostile import Hostile, ways
from tests.posting import Conversation, receiver


async def main(elsewhere: str) -> None:
    hostile = Hostile(ways(elsewhere), random.Random(1))

    async def answer(request: Conversation) -> None:
        if not request.head.startswith(b"GET /"):
            await hostile.answer(request)
            return
        hostile.healed = hostile.healed or request.head.startswith(b"GET /heal ")
        read = [(each.path, each.id, each.cvm_id, each.number) for each in hostile.read]
        body = json.dumps({"read": read, "used": hostile.used}).encode()
        await request.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)

    async with receiver(answer) as serving:
        print(serving.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
