"""What `bridge check` advises about what it found. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bridge.printable import printable
from bridge.redis_url import parse_redis_url
from bridge.store.rights import rights
from bridge.store.slots import SlotRecord

_REFUSED = re.compile(r"no permissions|ACL failure|NOPERM", re.IGNORECASE)
_UNKNOWN_USER = re.compile(r"AuthenticationError|WRONGPASS|NOAUTH")
_CERTIFICATE = re.compile(r"certificate verify failed")


def redis_remedy(trouble: str, url: str, namespace: str) -> list[str]:
    """What helps against an error of the Redis at `url`. It shows the URL's user, and never the password."""
    user, is_tls, is_cluster = _read(url)
    if _REFUSED.search(trouble):
        need = f"give the user {user} the rights that it lacks, and no others:"
        return [need, *rights(user, namespace, cluster=is_cluster, new=False)]
    if _UNKNOWN_USER.search(trouble):
        need = "the user or the password in REDIS_URL is not accepted; this makes a user with the least rights:"
        return [need, *rights("bridge", namespace, cluster=is_cluster, new=True)]
    if _CERTIFICATE.search(trouble):
        return [
            "add ssl_ca_certs=/path/of/the/authority.pem to the query of REDIS_URL, and use the host name that the",
            "certificate is for",
        ]
    speaks = "does it speak TLS on this port, and does it ask for a certificate (ssl_certfile, ssl_keyfile)?"
    return [
        "is it running, and are the host and the port in REDIS_URL correct?",
        speaks if is_tls else "does it speak TLS on this port? then REDIS_URL begins with rediss",
    ]


def _read(url: str) -> tuple[str, bool, bool]:
    """The user, whether it asks for TLS, and whether it is a cluster."""
    try:
        parts = parse_redis_url(url)
    except ValueError:
        return "default", False, False
    user = printable(str(parts.options.get("username") or "default"))
    return user, bool(parts.options.get("ssl")), parts.kind == "cluster"


def slot_notes(slots: Iterable[SlotRecord], status: Mapping[str, Any], most: int) -> list[str]:
    """Why fewer than `most` streams can be open, and what helps."""
    leader, found = status.get("leader"), []
    if others := [each for each in slots if each.state == "quarantined" and each.holder != leader]:
        until = max(each.until or "" for each in others)
        found.append(
            f"{len(others)} slot(s) are of a leader that has vanished: they are free at {until} by themselves, once "
            "upstream has certainly closed its streams"
        )
    if status.get("blocked"):
        found.append("upstream refuses the leader's PHALA_CLOUD_API_KEY: give `bridge upstream` a valid one")
    elif status.get("budget_reason") == "rate_limited" and int(status.get("budget", most)) < most:
        found.append(
            "upstream refuses further streams: another program has some open with this account (end it, or lower "
            "BRIDGE_MAX_STREAMS by what it needs), or upstream has not noticed yet that one was closed"
        )
    return found


def version_lines(seen: Sequence[tuple[str, str]], own: str) -> list[str]:
    """`seen`: role and version of what runs; `own`: this command's version. Earlier releases tell none."""
    found = [f"{printable(role)} {printable(version)}" for role, version in seen]
    lines = [f"versions {', '.join(found)}"] if found else []
    if {version for _, version in seen} - {own}:
        lines.append(f"note     this command is {own}: bring all to one version; several serve during an upgrade only")
    return lines
