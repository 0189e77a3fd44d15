"""Phala Cloud's signature: what is signed, and how far a timestamp may be off."""

from __future__ import annotations

import pytest

from bridge.phala_signature import TOLERANCE, seconds_off, sign, verify


def test_a_signature_belongs_to_one_secret_timestamp_and_body() -> None:
    signature = sign("whsec_c2VjcmV0", "1795536000", b"{}")
    assert signature.startswith("sha256=")
    assert verify("whsec_c2VjcmV0", "1795536000", b"{}", signature)
    assert not verify("c2VjcmV0", "1795536000", b"{}", signature)
    assert not verify("whsec_c2VjcmV0", "1795536001", b"{}", signature)
    assert not verify("whsec_c2VjcmV0", "1795536000", b"{} ", signature)
    assert not verify("whsec_c2VjcmV0", "1795536000", b"{}", "sha256=ü")


@pytest.mark.parametrize(
    ("timestamp", "off"),
    [
        ("1000", 0.0),
        ("700", TOLERANCE),
        ("1301", 301.0),
        ("", None),
        ("-5", None),
        ("1e3", None),
        ("٣", None),
        ("9" * 12, None),
    ],
)
def test_a_timestamp_is_off_in_either_direction_or_malformed(timestamp: str, off: float | None) -> None:
    assert seconds_off(timestamp, 1000.0) == off
