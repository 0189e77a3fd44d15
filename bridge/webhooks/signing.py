"""Signatures, made at each attempt: receivers refuse a signature that is older than five minutes.

Standard Webhooks keys its HMAC with the decoded part of the secret behind `whsec_`; Phala Cloud with the whole
string. Both sign the same bytes that are sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge import phala_signature

PREFIX = "whsec_"


def sign(
    delivery_id: str,
    at: int,
    body: bytes,
    secrets: Sequence[str],
    keys: Sequence[Ed25519PrivateKey] = (),
    *,
    phala: bool,
) -> dict[str, str]:
    """The headers of an attempt made at `at` (Unix seconds), lower-case.

    Each of `secrets` signs for Standard Webhooks as `v1`, then each of `keys` as `v1a`. Phala's header has room for
    one signature, so there the first secret signs alone.
    """
    signed = f"{delivery_id}.{at}.".encode() + body
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(
            [*(_standard(secret, signed) for secret in secrets), *(_by_key(key, signed) for key in keys)]
        ),
    }
    if phala and secrets:
        signature = phala_signature.sign(secrets[0], str(at), body)
        headers |= {"x-webhook-timestamp": str(at), "x-webhook-signature": signature}
    return headers


def _standard(secret: str, signed: bytes) -> str:
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _by_key(key: Ed25519PrivateKey, signed: bytes) -> str:
    return f"v1a,{base64.b64encode(key.sign(signed)).decode()}"


def key_of(secret: str) -> bytes:
    """The bytes that `whsec_…` encodes. Raises ValueError if it is not base64."""
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str | None:
    """The fault in the signatures that a receiver got (`headers` by lower-case name), or None.

    A Phala signature is checked if there is one.
    """
    delivery_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    off = phala_signature.seconds_off(at, now)
    if off is None:
        return "webhook-timestamp is missing or malformed"
    if off > phala_signature.TOLERANCE:
        return f"webhook-timestamp is {off:.0f} s off"
    at = str(int(at))
    expected = sign(delivery_id, int(at), body, [secret], phala=False)["webhook-signature"]
    given = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected.encode(), each.encode()) for each in given):
        return "webhook-signature does not fit"
    phala = headers.get("x-webhook-signature")
    if phala is not None and not phala_signature.verify(secret, at, body, phala):
        return "x-webhook-signature does not fit"
    return None
