"""Spans are exported only where a collector is named, and a process without the extra goes on without."""

from __future__ import annotations

import sys

import pytest

from bridge import tracing
from bridge.process.span_export import ENDPOINTS, exporting


def test_without_a_collector_nobody_wants_spans_and_the_sdk_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.setitem(sys.modules, "bridge.process.otel", None)  # its import would fail
    with exporting():
        assert not tracing.are_exported()


@pytest.mark.parametrize("named", ENDPOINTS)
def test_a_missing_extra_is_one_line_that_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, named: str
) -> None:
    monkeypatch.setenv(named, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "bridge.process.otel", None)
    with exporting():
        assert not tracing.are_exported()
    (line,) = caplog.messages
    assert "cvm-bridge[otel]" in line
    assert f" {named} " in line
