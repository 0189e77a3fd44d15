"""`bridge webhooks` at a front end: what it sends is what the routes take."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from bridge.client import Client, NotFoundError
from bridge.commands import webhooks
from bridge.commands.asking import Exit, Output
from tests.real.webhook_api import URL, Api


@pytest.fixture
async def bridge(api: Api) -> AsyncIterator[Client]:
    async with Client("http://bridge", "root-token", transport=api.asgi) as made:
        yield made


async def test_an_endpoint_is_made_shown_switched_recovered_and_removed(
    bridge: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    async def done(work: Callable[..., Coroutine[Any, Any, Exit]], *given: Any, **named: Any) -> list[dict[str, Any]]:
        assert await work(bridge, Output(is_terminal=False), *given, **named) is Exit.DONE
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (made,) = await done(webhooks.add_endpoint, {"url": URL, "to": ["running"]}, None)
    assert made["secret"].startswith("whsec_")
    (mine,) = await done(webhooks.add_endpoint, {"url": URL}, "mine")
    found = {made["id"], mine["id"]}
    assert {each["id"] for each in await done(webhooks.list_endpoints)} == found == {made["id"], "mine"}
    (off,) = await done(webhooks.switch_endpoints, ["mine"], on=False)
    assert not off["enabled"]
    assert await webhooks.switch_endpoints(bridge, Output(is_terminal=False), ["none"], on=False) is Exit.REFUSED
    (on,) = await done(webhooks.switch_endpoints, ["mine"], on=True)
    assert on["enabled"]
    assert await webhooks.send_test(bridge, Output(is_terminal=False), "mine", 0.0) is Exit.UNFINISHED
    capsys.readouterr()
    (shown,) = await done(webhooks.show_endpoint, "mine")
    assert [each["status"] for each in shown["deliveries"]] == ["pending"]
    (recovered,) = await done(webhooks.recover_endpoint, "mine", {"since": "2026-11-24T16:00:00Z", "all": False})
    assert recovered["complete"]
    assert await done(webhooks.remove_endpoints, sorted(found)) == []
    with pytest.raises(NotFoundError):
        await webhooks.show_endpoint(bridge, Output(is_terminal=False), "mine")
