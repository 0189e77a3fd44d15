"""Webhooks verified by code that is not ours: the published packages, and the platform's own ed25519.

`v1a` is verified as docs/webhooks.md tells receivers to.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from phala_cloud import parse_webhook_event
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.addresses import with_loopback
from bridge.clock import SystemClock
from bridge.config_values import Allowlist
from bridge.events import ANY_PHALA, LOG_TYPES, NOTICES, Draft, dumps, is_log_type
from bridge.sealing import Sealer
from bridge.store.connection import connect
from bridge.web.api.envelopes import TIME
from bridge.web.api.samples import by_name
from bridge.webhook_formats import FORMATS, KEY_PAIR_FORMATS, Format
from bridge.webhooks.dispatcher import Dispatcher
from bridge.webhooks.formats import render
from bridge.webhooks.signing import sign
from bridge.webhooks.transport import Poster
from tests.lanes import Writer
from tests.node.runtime import HERE, run
from tests.real.webhook_api import KEY, Api, front
from tests.receivers import Hit, Receiver, receiving
from tests.unit.webhooks.deliveries import event

SECRETS = {name: "whsec_" + base64.b64encode(name[:1].encode() * 32).decode() for name in ("old", "new")}

PHASES = {"before": {"old"}, "overlap": {"old", "new"}, "after": {"new"}}
"""Of a rotation, with the secret and the key pair that count in each."""

OVERLAP, LATER = 100, 150
"""Seconds, and by how much the clocks are ahead after it: less than receivers bear."""

SAMPLES = {each["type"]: each["data"] for each in by_name("").values() if is_log_type(each.get("type", ""))}
"""Data of every type of event."""

TEST = "webhook.test"

Case = tuple[Format, str, str]
"""Format, type and phase."""


class Ahead(SystemClock):
    """By `seconds`, from the test's word on."""

    seconds = 0.0

    def time(self) -> float:
        return super().time() + self.seconds


def documented(language: str) -> str:
    """The receiver's code in the page for its author."""
    found = re.search(
        f"```{language}\n(.*?)```", (HERE.parents[1] / "docs/webhooks.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


def said_by_node(
    hits: Sequence[tuple[Mapping[str, str], bytes]], jwks: Mapping[str, Any]
) -> list[dict[str, dict[str, Any]]]:
    given = [{"headers": dict(headers), "body": body.decode()} for headers, body in hits]
    found: list[dict[str, dict[str, Any]]] = run(
        "verify.mjs", {"hits": given, "secrets": SECRETS, "jwks": jwks, "snippet": documented("js")}
    )
    return found


def accepts(verify: Callable[..., Any], *given: Any, **more: Any) -> bool:
    try:
        return verify(*given, **more) is not False
    except (ValueError, WebhookVerificationError):
        return False


@dataclass
class Rotation:
    """An endpoint of each format behind a front end and a dispatcher, and what their receiver got."""

    api: Api
    writer: Writer
    receiver: Receiver
    clock: Ahead
    hits: dict[Case, Hit] = field(default_factory=dict)
    jwks: dict[str, Any] = field(default_factory=dict)
    """Published keys by format and phase."""
    addresses: dict[Format, str] = field(default_factory=dict)

    async def registers(self) -> None:
        for format in FORMATS:
            fields: dict[str, Any] = {"url": f"{self.receiver.url}/{format}", "types": [*LOG_TYPES, ANY_PHALA]}
            fields |= {"signatures": ["v1", "v1a"]} if format in KEY_PAIR_FORMATS else {}
            given = {**fields, "format": format, "secret": SECRETS["old"]}
            made = (await self.api.put(f"/v1/webhooks/{format}", json=given)).json()
            if format in KEY_PAIR_FORMATS:
                self.addresses[format] = made["public_keys_url"]

    async def delivers(self, phase: str) -> None:
        """One event of each type, and a test, to each endpoint."""
        kinds = {await self.writer.write(_draft(kind, data)): kind for kind, data in SAMPLES.items()}
        for format in FORMATS:
            delivery = (await self.api.post(f"/v1/webhooks/{format}/test")).json()["id"]
            kinds[delivery.removeprefix(f"{format}-")] = TEST
        count = len(FORMATS) * (len(SAMPLES) + 1)
        await self.receiver.until(lambda: len(self.receiver.accepted) == count, f"{count} deliveries")
        for format in FORMATS:
            for hit in (each for each in self.receiver.accepted if each.path == f"/{format}"):
                self.hits[format, kinds[hit.id.removeprefix(f"{format}-")], phase] = hit
        for format, address in self.addresses.items():
            answer = await self.api.get(address, headers={"Authorization": ""})
            self.jwks[f"{format} {phase}"] = answer.json()
        self.receiver.accepted.clear()

    async def rotates(self) -> None:
        given = {"secret": SECRETS["new"], "overlap_seconds": OVERLAP}
        for format in FORMATS:
            assert (await self.api.post(f"/v1/webhooks/{format}/rotate-secret", json=given)).status_code == 200

    async def goes_through(self) -> None:
        """During the overlap the receiver of the format `phala` has the old secret."""
        await self.registers()
        await self.delivers("before")
        await self.rotates()
        self.receiver.answer = _late
        await self.delivers("overlap")
        self.clock.seconds = LATER
        self.receiver.answer = Receiver.answer
        await self.delivers("after")


def _draft(kind: str, data: Any) -> Draft:
    subject = ("", "other") if kind in NOTICES else (f"cvm-{kind}", "")
    return Draft(kind, subject[0], TIME, dumps(data), subject[1])


async def _late(hit: Hit) -> int:
    return 204 if hit.path != "/phala" or TEST in hit.body.decode() or _phala(hit, "old") else 401


def _phala(hit: Hit, secret: str) -> bool:
    return accepts(parse_webhook_event, headers=hit.headers, body=hit.body.decode(), secret=SECRETS[secret])


@asynccontextmanager
async def rotation(redis_url: str) -> AsyncIterator[Rotation]:
    clock, stop, backend = Ahead(), asyncio.Event(), connect(redis_url, "bridge")
    made = Poster(timeout=5.0, allow=with_loopback(Allowlist()), clock=clock)
    async with front(redis_url, clock=clock) as api, receiving() as receiver, made as poster:
        unseal = Sealer([SecretStr(KEY)]).open
        dispatcher = Dispatcher(backend, poster, unseal=unseal, retry=[0.02] * 5, clock=clock)
        running = asyncio.create_task(dispatcher.run(stop))
        try:
            yield Rotation(api, await Writer.lead(api.backend), receiver, clock)
        finally:
            stop.set()
            await running
            await backend.close()


async def test_every_format_and_type_is_accepted_before_during_and_after_a_rotation(redis_url: str) -> None:
    async with rotation(redis_url) as seen:
        await seen.goes_through()
    assert set(LOG_TYPES) < set(SAMPLES)
    assert seen.hits.keys() == {(f, kind, phase) for f in FORMATS for kind in (*SAMPLES, TEST) for phase in PHASES}
    right = {case: _accepted(*case) for case in seen.hits}
    assert {case: _said(hit, seen.jwks) for case, hit in seen.hits.items()} == right
    by_node = said_by_node([(hit.headers, hit.body) for hit in seen.hits.values()], seen.jwks)
    for case, said in zip(seen.hits, by_node, strict=True):
        answers = {verifier: {name: "event" in answer for name, answer in by.items()} for verifier, by in said.items()}
        assert answers == right[case], case
    for (format, kind, _), hit in seen.hits.items():
        if format == "cloudevents":
            read = from_http_event(HTTPMessage(headers=hit.headers, body=hit.body), JSONFormat())
            assert (read.get_type(), read.get_source()) == (kind, "/bridge/bridge")


def _accepted(format: Format, kind: str, phase: str) -> dict[str, dict[str, bool]]:
    """What each verifier shall accept, by secret, or by the endpoint and phase that the keys are from."""
    counting = PHASES[phase]
    # The receiver has the old secret, and gets an attempt with it. A test is one attempt, with the new one.
    phala = "new" if phase == "after" or (phase, kind) == ("overlap", TEST) else "old"
    return {
        "standard": {name: name in counting for name in SECRETS},
        "phala": {name: (format, name) == ("phala", phala) for name in SECRETS},
        "v1a": {
            f"{other} {when}": format == other and bool(counting & PHASES[when])
            for when in PHASES
            for other in KEY_PAIR_FORMATS
        },
    }


def _said(hit: Hit, jwks: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """What Python's verifiers accept."""
    told: dict[str, Any] = {}
    exec(documented("python"), told)  # noqa: S102 - the code that receivers are told to use
    return {
        "standard": {
            name: accepts(Webhook(each).verify, hit.body, hit.headers, json_parse=False)
            for name, each in SECRETS.items()
        },
        "phala": {name: _phala(hit, name) for name in SECRETS},
        "v1a": {name: accepts(told["verify"], hit.headers, hit.body, keys) for name, keys in jwks.items()},
    }


def test_phalas_sdk_parses_the_phala_format_and_all_refuse_what_is_six_minutes_old() -> None:
    rendered, now = render("phala", event(name="Bücher"), ran=True), int(time.time())
    signed = [sign("wh_1-1", at, rendered.body, [SECRETS["new"]], phala=True) for at in (now, now - 360)]
    hits = [({**rendered.headers, **headers}, rendered.body) for headers in signed]
    young, old = said_by_node(hits, {})
    parsed = young["phala"]["new"]["event"]
    assert (parsed["event"], parsed["id"], parsed["version"]) == ("cvm.started", "evt_1795536119319-0", "1")
    assert (parsed["data"]["status"], parsed["data"]["cvm_name"]) == ("running", "Bücher")
    assert "Invalid webhook signature" in young["phala"]["old"]["refused"]
    assert "expired" in old["phala"]["new"]["refused"]
    assert "too old" in old["standard"]["new"]["refused"]
