"""What a request's head must not leave open: two readers of it must come to the same request (RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterable

VERSIONS = ("1.1", "1.0")


def ambiguity(version: str, target: bytes, fields: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why another server could read the head otherwise; None if it is clear. Names of `fields` are in lower case.

    The parser has refused what is wrong in itself, such as two lengths, or a length beside chunks.
    """
    if version not in VERSIONS:
        return "its version is not 1.0 or 1.1"
    hosts, codings = [], []
    for name, value in fields:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if len(hosts) > 1:
        return "it has several hosts"
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return "its transfer coding is not only chunks"
    named = authority(target)
    if named is not None and hosts and hosts[0].lower() != named.lower():
        return "its target and its host differ"
    return None


def authority(target: bytes) -> bytes | None:
    """The host and port of a target in absolute form, which a proxy would be sent; None of any other one."""
    if target.startswith(b"/"):
        return None
    _, mark, rest = target.partition(b"://")
    return rest.partition(b"/")[0] if mark else None
