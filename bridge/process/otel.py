"""Spans as OpenTelemetry's SDK has them. The extra `otel` brings it: only `span_export.py` imports this."""

from __future__ import annotations

import os
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from bridge.tracing import Span


def exporter() -> tuple[Callable[[Span], None], Callable[[], None]]:
    """What takes a span, without waiting, and what ends it."""
    processor = BatchSpanProcessor(OTLPSpanExporter())
    is_named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if is_named else {"service.name": "bridge"})
    kinds = {"observe": SpanKind.CLIENT, "append": SpanKind.PRODUCER, "attempt": SpanKind.CLIENT}

    def export(span: Span) -> None:
        trace_id, flags = int(span.trace.trace_id, 16), TraceFlags(span.trace.flags)
        state = TraceState.from_header([span.trace.state])
        parent_id = int(span.parent_id, 16) if span.parent_id else None
        made = ReadableSpan(
            span.name,
            SpanContext(trace_id, int(span.trace.span_id, 16), False, flags, state),
            SpanContext(trace_id, parent_id, True, flags) if parent_id else None,
            resource,
            {name: value for name, value in span.about.items() if isinstance(value, str | int)},
            kind=kinds.get(span.name, SpanKind.SERVER),
            status=Status(StatusCode.ERROR, span.fault) if span.fault else Status(),
            start_time=round(span.began * 1e9),
            end_time=round(span.ended * 1e9),
            instrumentation_scope=InstrumentationScope("bridge"),
        )
        processor.on_end(made)

    return export, processor.shutdown
