"""The `Retry-After` header as upstream, receivers and the bridge itself may send it."""

from __future__ import annotations

import math

import pytest

from bridge.retry_after import parse_retry_after

#: Tue, 24 Nov 2026 16:00:00 GMT
NOW = 1_795_536_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 120 ", 120.0),
        ("86400", 86_400.0),
        ("Tue, 24 Nov 2026 16:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 16:01:00 GMT", 60.0),
        ("Tue, 24 Nov 2026 16:01:00 -0000", 60.0),
        ("Tue, 24 Nov 2026 18:01:00 +0200", 60.0),
        ("Tuesday, 24-Nov-26 16:01:00 GMT", 60.0),
        ("Tue Nov 24 16:01:00 2026", 60.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("+5", None),
        ("0x10", None),
        ("٣", None),
        ("²", None),
        ("86401", 86_400.0),
        ("999999999999999999999999", 86_400.0),
        ("9" * 400, 86_400.0),
        ("9" * 5000, 86_400.0),
        ("Tue, 24 Nov 2026 15:59:00 GMT", None),
        ("Thu, 26 Nov 2026 16:00:00 GMT", 86_400.0),
        ("Tue, 99 Nov 2026 16:00:00 GMT", None),
        ("Tue, 24 Nov 99999999 16:00:00 GMT", None),
        ("soon, please", None),
        ("2026-11-24T16:01:00Z", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_both_forms_are_read_and_nothing_else(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW, longest=86_400.0) == seconds


def test_a_caller_may_set_no_bound() -> None:
    assert parse_retry_after("86401", NOW, longest=math.inf) == 86_401.0
    assert parse_retry_after("9" * 400, NOW, longest=math.inf) is None
