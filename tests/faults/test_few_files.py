"""A dispatcher with fewer open files than receivers: it bounds its connections, and blames no receiver."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from bridge.sealing import Sealer, new_key
from bridge.store.connection import connect
from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import SealedSecret
from bridge.store.endpoints import Endpoints
from tests.lanes import Writer, endpoint
from tests.receivers import Hit, receiving
from tests.servers import RealServer

HOSTS = 200
SIGNED_WITH = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(("soft", "hard"), [(60, 4096), (130, 130)], ids=["raised", "all it may have"])
async def test_more_receivers_than_files_get_everything_at_the_first_attempt(soft: int, hard: int) -> None:
    key = new_key()

    async def answer(hit: Hit) -> int:
        """As slow receivers: many attempts are open at the same time."""
        await asyncio.sleep(0.05)
        return 204

    async with receiving(host="0.0.0.0") as receiver:  # noqa: S104 - every address of the loopback network
        receiver.answer = answer
        with RealServer() as server:
            backend = connect(server.url, "bridge")
            writer, sealer = await Writer.lead(backend), Sealer([SecretStr(key)])
            for number in range(HOSTS):
                url = f"http://127.0.1.{number + 1}:{receiver.port}/{number}"
                secret = (SealedSecret(sealer.seal(SIGNED_WITH)),)
                await Endpoints(backend).create(endpoint(f"e{number}", url=sealer.seal(url), secrets_sealed=secret))
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path.cwd()),
                "REDIS_URL": server.url,
                "BRIDGE_SECRET_KEY": key,
                "BRIDGE_WEBHOOK_ALLOW": "127.0.0.0/8",
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bridge",
                "dispatcher",
                env=environment,
                stderr=asyncio.subprocess.PIPE,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
            )
            try:
                for _ in range(3):
                    await writer.append()
                await receiver.until(lambda: len(receiver.accepted) >= 3 * HOSTS, "all deliveries")
            finally:
                process.terminate()
                _, errors = await process.communicate()
            for number in range(HOSTS):
                for delivery in (await Deliveries(backend).page(f"e{number}"))[0]:
                    assert [attempt.error for attempt in delivery.attempts] == [None]
            await backend.close()
    assert b"Too many open files" not in errors
