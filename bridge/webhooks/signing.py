"""Signatures, made at the attempt and not at the event: receivers refuse what is older than five minutes.

Standard Webhooks keys its HMAC with the decoded part of the secret behind `whsec_`; Phala Cloud with the whole
string. Both sign the same bytes that are sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"

TOLERANCE = 300
"""Seconds that a receiver's clock may differ; beyond, a delivery may be a replay."""


def sign(delivery_id: str, at: int, body: bytes, secrets: Sequence[str], *, phala: bool) -> dict[str, str]:
    """The headers of an attempt made at `at` (Unix seconds), lower-case.

    `secrets`: the current one first; each signs for Standard Webhooks. Phala's header has room for one signature, so
    there the current one signs alone.
    """
    signed = f"{delivery_id}.{at}.".encode() + body
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(_standard(secret, signed) for secret in secrets),
    }
    if phala and secrets:
        digest = hmac.new(secrets[0].encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        headers |= {"x-webhook-timestamp": str(at), "x-webhook-signature": f"sha256={digest}"}
    return headers


def _standard(secret: str, signed: bytes) -> str:
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def key_of(secret: str) -> bytes:
    """The bytes that `whsec_…` stands for. Raises ValueError where it is not base64."""
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str | None:
    """What is wrong with the signatures that a receiver got (`headers` by lower-case name); None where all is well.

    A Phala signature is looked at where there is one.
    """
    delivery_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (at.isascii() and at.isdigit() and len(at) < 12):
        return "webhook-timestamp is missing or malformed"
    if abs(now - int(at)) > TOLERANCE:
        return f"webhook-timestamp is {abs(now - int(at)):.0f} s off"
    expected = sign(delivery_id, int(at), body, [secret], phala=True)
    given = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected["webhook-signature"].encode(), each.encode()) for each in given):
        return "webhook-signature does not fit"
    phala = headers.get("x-webhook-signature", expected["x-webhook-signature"])
    fits = hmac.compare_digest(expected["x-webhook-signature"].encode(), phala.encode())
    return None if fits else "x-webhook-signature does not fit"
