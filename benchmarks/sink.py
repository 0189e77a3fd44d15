"""A receiver for the benchmarks of webhooks, a process of its own: answers 204 and remembers when what came where."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from aiohttp import web

received: list[tuple[float, str, str]] = []
slowest = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
"""Seconds until an answer, at random up to this."""


async def handle(request: web.BaseRequest) -> web.Response:
    if request.method == "GET":
        answer = web.json_response(received)
        received.clear()
        return answer
    at, body = time.time(), await request.read()
    # The event's own number, wherever the sender put it; parsing would cost more than receiving.
    _, _, rest = body.partition(b'"status":"')
    received.append((at, request.path, rest.partition(b'"')[0].decode()))
    if slowest:
        await asyncio.sleep(random.random() * slowest)
    return web.Response(status=204)


async def main(port: int) -> None:
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
