"""Phala Cloud's webhook signature: HMAC-SHA-256 over `<timestamp>.<body>`, keyed with the whole secret string."""

from __future__ import annotations

import base64
import hashlib
import hmac

TOLERANCE = 300.0
"""Seconds by which a receiver accepts a timestamp to be off, as Phala's own SDKs do; an older delivery is a replay."""


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The value of `X-Webhook-Signature`: `sha256=` and the digest in hex. `whsec_` is part of the key."""
    return f"sha256={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def verify(secret: str, timestamp: str, body: bytes, signature: str) -> bool:
    """Whether the signature is genuine, compared in constant time. The timestamp's age is not part of this check."""
    return hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode())


def seconds_off(timestamp: str, now: float) -> float | None:
    """How far the timestamp (decimal Unix seconds) is from `now`, in either direction; None if it is malformed."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        return None
    return abs(now - int(timestamp))


def made_secret(key: str) -> str:
    """The secret of a webhook that the bridge registers by itself, made of one of its own keys: it is kept nowhere."""
    made = hmac.new(key.encode(), b"bridge: the secret of Phala Cloud's webhook", hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(made).decode()}"
