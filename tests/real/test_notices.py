"""A dead endpoint that is called as a CVM, over real sockets: a chat and a stream hear of it, and nobody else."""

from __future__ import annotations

import asyncio

from bridge.events import ENDPOINT_DISABLED, NOTICES
from bridge.store.watches import Watches
from tests.bridges import sse
from tests.real.fronts import Front, front
from tests.real.test_dispatcher import sending
from tests.receivers import Hit
from tests.servers import PATIENCE

CVM = "0e4b0c9e-0000-4000-8000-000000000001"
TOKENS = f"all:all-token:read one:one-token:read:{CVM}"
JSON = {"Accept": "application/json"}
ASKS = "&".join(f"type={kind}" for kind in NOTICES)


def headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}-token"}


async def page(web: Front, token: str, path: str) -> list[str]:
    answer = await web.http.get(f"{web.url}{path}", headers=headers(token) | JSON)
    return [each["type"] for each in answer.raise_for_status().json()["items"]]


async def test_a_dead_endpoint_is_told_to_whom_asks_and_may_see_all_and_to_nobody_else(redis_url: str) -> None:
    async with sending(redis_url) as bridge, front(redis_url, open_access=False, tokens=TOKENS) as web:

        async def answer(hit: Hit) -> int:
            return 410 if hit.path == f"/{CVM}" else 204

        bridge.receiver.answer = answer
        await bridge.register(CVM, types=("cvm.transition", *NOTICES))
        await bridge.register("chat", types=NOTICES, format="slack")
        await bridge.register("every", types=())
        await bridge.register("team", types=NOTICES, reach=(CVM,), owner="team")
        await bridge.register("named", types=NOTICES, cvms=(CVM,))
        await Watches(web.backend).want(CVM)
        await bridge.append(CVM)
        async with asyncio.timeout(PATIENCE):
            while not await bridge.writer.take_notices():  # noqa: ASYNC110 - what is waited for happens in Redis
                await asyncio.sleep(0.02)
        await bridge.append(CVM)
        begin = "snapshot=0&since=2001-01-01T00:00:00Z"
        told = await sse(web.http, f"{web.url}/v1/events?{begin}&{ASKS}", 1, headers=headers("all"))
        (name, _, event) = told[-1]
        assert (name, event["type"], event["subject"]) == ("disabled", ENDPOINT_DISABLED, CVM)
        assert event["data"]["url"] == f"{bridge.receiver.url}/…"
        assert event["data"]["reason"] == "the receiver answered 410 Gone"
        changes = ["cvm.transition"] * 2
        assert await page(web, "all", f"/v1/events?{ASKS}") == [ENDPOINT_DISABLED]
        assert await page(web, "all", "/v1/events") == changes
        assert await page(web, "all", f"/v1/events?cvm={CVM}&type=cvm.transition&{ASKS}") == changes
        assert await page(web, "one", f"/v1/events?type=cvm.transition&{ASKS}") == changes
        for path in ("/v1/events", f"/v1/cvms/{CVM}/events"):
            events = await sse(web.http, f"{web.url}{path}?{begin}", 2, headers=headers("one"))
            assert [name for name, *_ in events if name not in ("snapshot", "position")] == ["transition"] * 2

        def heard(path: str) -> list[Hit]:
            return [hit for hit in bridge.receiver.hits if hit.path == path]

        await bridge.receiver.until(lambda: len(heard("/chat")) == 1 and len(heard("/every")) == 2, "what is told")
        assert f"webhook {CVM}: disabled".encode() in heard("/chat")[0].body
        assert (len(heard(f"/{CVM}")), len(heard("/team")), len(heard("/named"))) == (1, 0, 0)
