from __future__ import annotations

import pytest

from bridge.web.http.request_head import ambiguity, authority

HOST = (b"host", b"localhost:8000")


@pytest.mark.parametrize(
    ("version", "target", "fields"),
    [
        ("1.1", b"/v1/events", [HOST]),
        ("1.1", b"/v1/events", []),
        ("1.0", b"/v1/events", []),
        ("1.1", b"*", [HOST]),
        ("1.1", b"/?u=http://example.org/", [HOST]),
        ("1.1", b"http://LOCALHOST:8000/v1/events", [HOST]),
        ("1.1", b"http://example.org/", []),
        ("1.1", b"/", [HOST, (b"transfer-encoding", b" Chunked ")]),
    ],
)
def test_a_clear_head(version: str, target: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    assert ambiguity(version, target, fields) is None


@pytest.mark.parametrize(
    ("version", "target", "fields", "why"),
    [
        ("0.9", b"/", [], "its version is not 1.0 or 1.1"),
        ("2.0", b"/", [HOST], "its version is not 1.0 or 1.1"),
        ("1.1", b"/", [HOST, HOST], "it has several hosts"),
        ("1.1", b"http://example.org/", [HOST], "its target and its host differ"),
        ("1.1", b"http://example.org/", [(b"host", b"")], "its target and its host differ"),
        ("1.1", b"/", [(b"transfer-encoding", b"gzip, chunked")], "its transfer coding is not only chunks"),
        ("1.1", b"/", [(b"transfer-encoding", b"chunked")] * 2, "its transfer coding is not only chunks"),
        ("1.0", b"/", [(b"transfer-encoding", b"chunked")], "its transfer coding is not only chunks"),
    ],
)
def test_an_ambiguous_head(version: str, target: bytes, fields: list[tuple[bytes, bytes]], why: str) -> None:
    assert ambiguity(version, target, fields) == why


def test_only_a_target_in_absolute_form_has_an_authority() -> None:
    assert authority(b"http://example.org:80/a?b") == b"example.org:80"
    assert authority(b"http://example.org") == b"example.org"
    assert authority(b"/http://example.org/") is None
    assert authority(b"*") is None
