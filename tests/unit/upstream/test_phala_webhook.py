"""The webhook that calls this bridge: registered once, found again by its URL, whatever fails on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from bridge.config import Settings
from bridge.sealing import new_key
from bridge.upstream import metrics
from bridge.upstream.errors import ForbiddenError, RequestRefusedError, UnreachableError, UpstreamError
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.phala_webhook import EVENTS, LOOK_AGAIN, LOOK_EVERY, PhalaWebhook
from tests.virtual import VirtualClock, run_virtual

URL = "https://bridge.example/v1/upstream/webhooks"
KEYS = new_key(), new_key()


class Workspace:
    """What Phala Cloud has. `failing`: methods that are refused; `unheard`: methods whose answer is lost."""

    def __init__(self) -> None:
        self.hooks: dict[str, dict[str, Any]] = {}
        self.failing: dict[str, UpstreamError] = {}
        self.unheard: set[str] = set()
        self.asked: list[str] = []
        self.most = 0
        self.forgets_events = False

    async def webhooks(self, method: str, path: str = "", body: object = None) -> Any:
        self.asked.append(method)
        if method in self.failing:
            raise self.failing[method]
        answer: Any = None
        match method:
            case "GET":
                answer = [{**hook, "secret": None} for hook in self.hooks.values()]
            case "DELETE":
                del self.hooks[path[1:]]
            case "POST":
                answer = self.add(**cast(dict[str, Any], body))
        if method in self.unheard:
            raise UnreachableError
        return answer

    def add(self, **fields: Any) -> dict[str, Any]:
        id = f"hook{len(self.asked)}{len(self.hooks)}"
        self.hooks[id] = {"id": id, "enabled": True, **fields}
        if self.forgets_events:
            self.hooks[id]["events"] = []
        self.most = max(self.most, len(self.here))
        return self.hooks[id]

    @property
    def here(self) -> list[dict[str, Any]]:
        return [hook for hook in self.hooks.values() if hook["url"] == URL]


@asynccontextmanager
async def term(workspace: Workspace, **given: Any) -> AsyncIterator[None]:
    """One leader's term; after entry it has looked once."""

    async def turn() -> bool:
        await asyncio.sleep(0.1)
        return True

    settings = Settings(**{"public_url": "https://bridge.example/", "secret_key": KEYS[0], **given})
    context = SimpleNamespace(
        settings=settings,
        clock=VirtualClock(),
        rng=random.Random(1),
        client=workspace,
        turn=turn,
        apply=lambda *_: None,
    )
    running = asyncio.create_task(PhalaWebhook(cast(LeaderContext, context)).run())
    await asyncio.sleep(5)
    yield
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


def test_it_is_registered_once_over_terms_and_others_are_left_alone() -> None:
    async def scenario() -> None:
        workspace = Workspace()
        workspace.add(url="https://other.example/", events=["cvm.created"], name=None)
        for _ in range(3):
            async with term(workspace):
                await asyncio.sleep(LOOK_AGAIN + 2 * LOOK_EVERY)
        (hook,) = workspace.here
        assert (set(hook["events"]), hook["secret"][:6], len(workspace.hooks)) == (set(EVENTS), "whsec_", 2)
        assert workspace.asked.count("POST") == 1

    run_virtual(scenario())


@pytest.mark.parametrize(
    "change", [{"secret_key": f"{KEYS[1]},{KEYS[0]}"}, {"webhook_secret": "whsec_other"}, {"events": ["cvm.created"]}]
)
def test_another_secret_or_other_events_replace_it_and_there_are_never_two(change: dict[str, Any]) -> None:
    async def scenario() -> None:
        workspace = Workspace()
        async with term(workspace):
            (before,) = workspace.here
        if events := change.get("events"):
            before["events"] = events
        async with term(workspace, **({} if events else change)):
            await asyncio.sleep(LOOK_EVERY)
        (after,) = workspace.here
        assert after["id"] != before["id"]
        assert set(after["events"]) == set(EVENTS)
        assert (after["secret"] == before["secret"]) == bool(events)
        assert workspace.most == 1

    run_virtual(scenario())


def test_of_two_that_a_frozen_leader_left_one_stays() -> None:
    async def scenario() -> None:
        workspace = Workspace()
        async with term(workspace):
            workspace.add(**{name: workspace.here[0][name] for name in ("url", "events", "name", "secret")})
            await asyncio.sleep(LOOK_AGAIN)
            assert len(workspace.here) == 1

    run_virtual(scenario())


@pytest.mark.parametrize("lost", ["POST", "DELETE", "GET"])
def test_a_lost_answer_makes_no_second_one(lost: str) -> None:
    async def scenario() -> None:
        workspace = Workspace()
        async with term(workspace):
            pass
        workspace.unheard.add(lost)
        async with term(workspace, secret_key=KEYS[1]):
            await asyncio.sleep(60)
            workspace.unheard.clear()
            await asyncio.sleep(LOOK_EVERY)
        assert (len(workspace.here), workspace.most) == (1, 1)

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("method", "error"), [("GET", ForbiddenError()), ("POST", RequestRefusedError()), ("DELETE", RequestRefusedError())]
)
def test_a_refusal_is_told_once_and_asked_again_ever_more_seldom(
    method: str, error: UpstreamError, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        workspace = Workspace()
        workspace.add(url=URL, events=[], name="by hand", secret="whsec_x")
        workspace.failing[method] = error
        async with term(workspace):
            await asyncio.sleep(6 * LOOK_EVERY)
            assert workspace.asked.count(method) < 20
            assert workspace.most == 1
            assert REGISTRY.get_sample_value("bridge_phala_webhook_missing") == 1
            workspace.failing.clear()
            await asyncio.sleep(2 * LOOK_EVERY)
            assert REGISTRY.get_sample_value("bridge_phala_webhook_missing") == 0
            assert [set(hook["events"]) for hook in workspace.here] == [set(EVENTS)]

    run_virtual(scenario())
    assert caplog.text.count("could not be registered") == 1


def test_what_upstream_lists_otherwise_than_it_was_made_is_not_made_again_and_again() -> None:
    async def scenario() -> None:
        workspace = Workspace()
        workspace.forgets_events = True
        async with term(workspace):
            await asyncio.sleep(5 * LOOK_EVERY)
        assert workspace.asked.count("POST") == 1

    run_virtual(scenario())


def test_one_that_somebody_disabled_stays_disabled(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        workspace = Workspace()
        async with term(workspace):
            workspace.here[0]["enabled"] = False
            await asyncio.sleep(3 * LOOK_EVERY)
        assert [hook["enabled"] for hook in workspace.here] == [False]

    run_virtual(scenario())
    assert caplog.text.count("is disabled") == 1


@pytest.mark.parametrize(("given", "warned"), [({"public_url": None}, 0), ({"secret_key": ()}, 1)])
def test_without_a_url_or_a_secret_nothing_is_asked(
    given: dict[str, Any], warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        workspace = Workspace()
        metrics.stand_by()  # as of a process that begins
        async with term(workspace, **given):
            await asyncio.sleep(60)
            assert REGISTRY.get_sample_value("bridge_phala_webhook_missing") == warned
        assert workspace.asked == []

    run_virtual(scenario())
    assert caplog.text.count("no webhook is registered") == warned
