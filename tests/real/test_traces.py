"""One trace id from what upstream showed, or from Phala Cloud's call, to each webhook attempt."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bridge import tracing
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.phala_signature import sign
from bridge.process.logs import JsonLines
from bridge.process.span_export import exporting
from bridge.store.connection import connect
from bridge.store.endpoint_record import SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.webhooks.dispatcher import Dispatcher
from bridge.webhooks.transport import Poster
from tests.bridges import sse, whole
from tests.lanes import endpoint, unsealed
from tests.receivers import Hit, Receiver, receiving
from tests.threaded_receiver import Post, Reply, receiving_posts

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the bridge logs, a JSON object a line."""
    lines, root = io.StringIO(), logging.getLogger("bridge")
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonLines())
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(logging.NOTSET)


def grep(lines: io.StringIO, text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines.getvalue().splitlines() if text in line]
    return [
        line
        for line in found
        if line["msg"] in ("a change was observed", "an event was written", "an attempt was made")
    ]


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the process exports within, read by OpenTelemetry's own messages; complete at the end."""
    bodies: list[bytes] = []

    def answer(post: Post) -> Reply:
        assert post.path == "/v1/traces"
        bodies.append(post.body)
        return Reply(200)

    spans: list[Any] = []
    with receiving_posts(answer) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with exporting():
            yield spans
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {each.key: each.value.string_value for each in resource.resource.attributes}[
                "service.name"
            ] == "bridge"
            spans += [span for scope in resource.scope_spans for span in scope.spans]


def family(spans: list[Any], trace_id: str) -> list[tuple[str, str]]:
    """The spans of one trace as (name, the name of the span that it is within)."""
    found = [span for span in spans if span.trace_id.hex() == trace_id]
    names = {span.span_id: span.name for span in found}
    assert all(0 < span.start_time_unix_nano <= span.end_time_unix_nano for span in found)
    return sorted((span.name, names.get(span.parent_span_id, span.parent_span_id.hex())) for span in found)


@asynccontextmanager
async def dispatching(url: str) -> AsyncIterator[Receiver]:
    """A dispatcher with one endpoint, whose receiver refuses the first attempt of each delivery."""
    backend, stop, clock = connect(url, "bridge"), asyncio.Event(), SystemClock()
    allow = Settings(webhook_allow="127.0.0.0/8").webhook_allow  # type: ignore[arg-type]
    async with receiving() as receiver, Poster(timeout=5.0, allow=allow, clock=clock) as poster:

        async def answer(hit: Hit) -> int:
            return 204 if sum(each.id == hit.id for each in receiver.hits) > 1 else 500

        receiver.answer = answer
        sealed = SealedSecret(f"sealed:{SECRET}")
        types = ("cvm.transition", "phala.cvm.updated")
        await Endpoints(backend).create(
            endpoint("e", url=f"sealed:{receiver.url}/e", secrets_sealed=(sealed,), types=types)
        )
        dispatcher = Dispatcher(backend, poster, unseal=unsealed, retry=[0.1] * 9, clock=clock)
        running = asyncio.create_task(dispatcher.run(stop))
        try:
            yield receiver
        finally:
            stop.set()
            await running
            await backend.close()


def attempts(receiver: Receiver, event_id: str) -> list[tracing.Trace | None]:
    sent = [hit.headers for hit in receiver.hits if hit.id == f"e-{event_id}"]
    return [tracing.read(headers["traceparent"], headers.get("tracestate")) for headers in sent]


async def test_an_event_is_followed_by_one_trace_id_from_upstream_to_each_attempt(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(monkeypatch) as spans, logged() as lines:
        settings = {"webhook_secret": SECRET}
        async with whole(redis_url, cvms=1, settings=settings) as bridge, dispatching(redis_url) as receiver:
            await bridge.until_seen(1)
            cvm_id, before = bridge.ids[0], (await bridge.log())[-1].id
            await bridge.patch(cvm_id, status="stopped")
            resumed = {"Last-Event-ID": before}
            ((_, event_id, envelope),) = await sse(bridge.http, f"{bridge.url}/v1/events", 1, headers=resumed)
            assert list(envelope)[-3:] == ["sequence", "traceparent", "data"]
            await receiver.until(lambda: len(receiver.accepted) == 1, "the delivery")

            body = json.dumps({"id": "evt_1", "event": "cvm.updated", "data": {"cvm_id": cvm_id}}).encode()
            seconds = str(int(time.time()))
            signed = {"X-Webhook-Timestamp": seconds, "X-Webhook-Signature": sign(SECRET, seconds, body)}
            url, traced = f"{bridge.url}/v1/upstream/webhooks", {"traceparent": CALLER, "tracestate": "vendor=1"}
            answer = await bridge.http.post(url, content=body, headers={**signed, **traced})
            assert answer.status_code == 204
            await receiver.until(lambda: len(receiver.accepted) == 2, "the delivery of Phala Cloud's webhook")
            phala = json.loads((await bridge.log())[-1].json)

    began = tracing.read(envelope["traceparent"])
    assert began is not None
    tried = attempts(receiver, event_id)
    assert {each and each.trace_id for each in tried} == {began.trace_id}
    assert len({began.span_id, *(each and each.span_id for each in tried)}) == 3, "each attempt is a span of its own"
    told = grep(lines, began.trace_id)
    assert [line["msg"].split()[1] for line in told] == ["change", "event", "attempt", "attempt"]
    assert {line["cvm_id"] for line in told} == {cvm_id}
    assert {line["event"] for line in told[1:]} == {event_id}
    assert [(line["delivery"], line["verdict"]) for line in told[2:]] == [
        (f"e-{event_id}", "failed"),
        (f"e-{event_id}", "delivered"),
    ]

    assert answer.headers["traceparent"] == phala["traceparent"]
    assert phala["tracestate"] == "vendor=1"
    caller = tracing.read(CALLER)
    assert caller is not None
    assert [(each.trace_id, each.state) for each in attempts(receiver, phala["id"]) if each] == [
        (caller.trace_id, "vendor=1")
    ] * 2
    assert [line["msg"].split()[1] for line in grep(lines, caller.trace_id)] == ["event", "attempt", "attempt"]

    inner = [("append", "observe"), ("attempt", "observe"), ("attempt", "observe")]
    assert family(spans, began.trace_id) == [*inner, ("observe", "")]
    called = [(name, "POST") for name, _ in inner]
    assert family(spans, caller.trace_id) == sorted([*called, ("POST", caller.span_id)])
