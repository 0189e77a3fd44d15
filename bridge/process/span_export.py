"""Spans to an OpenTelemetry collector, by OTLP over HTTP: only with the extra `otel`, and only where one is named."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator

from bridge import tracing
from bridge.tracing import Span

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables. Its SDK reads these, and others such as `OTEL_SERVICE_NAME`."""

LAST_SPANS = 1.0
"""Seconds that the last spans may take at the end of a process."""


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """While it lasts, the process's spans are exported, if the environment names a collector. One that does not answer
    delays nothing; its spans are lost.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS) or (begun := _begin()) is None:
        yield
        return
    export, end = begun
    try:
        with tracing.export_to(export):
            yield
    finally:
        ending = threading.Thread(target=end, name="last spans", daemon=True)
        ending.start()
        ending.join(LAST_SPANS)


def _begin() -> tuple[Callable[[Span], None], Callable[[], None]] | None:
    """As `otel.exporter`; None where the extra is missing."""
    try:
        from bridge.process.otel import exporter  # noqa: PLC0415
    except ImportError:
        named = next(name for name in ENDPOINTS if os.environ.get(name))
        logger.error("spans are not exported: %s is set, but install cvm-bridge[otel] first", named)
        return None
    return exporter()
