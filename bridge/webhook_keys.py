"""Key pairs of the signature scheme `v1a` (ed25519), in the text forms of Standard Webhooks.

The private form is the seed and the public key behind it, as libsodium and Svix have it: opening it gives both.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE_PREFIX, PUBLIC_PREFIX = "whsk_", "whpk_"

SEED_BYTES = 32


def new_private_text() -> str:
    """`whsk_` and base64 of 64 bytes."""
    key = Ed25519PrivateKey.generate()
    raw = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return PRIVATE_PREFIX + base64.b64encode(raw).decode()


def private_key(private_text: str) -> Ed25519PrivateKey:
    """Costs about as much as a signature: made once, not for each."""
    return Ed25519PrivateKey.from_private_bytes(_raw(private_text)[:SEED_BYTES])


def public_bytes(private_text: str) -> bytes:
    """The raw public key, 32 bytes."""
    return _raw(private_text)[SEED_BYTES:]


def public_text(public: bytes) -> str:
    """`whpk_` and base64 of the raw public key."""
    return PUBLIC_PREFIX + base64.b64encode(public).decode()


def _raw(private_text: str) -> bytes:
    return base64.b64decode(private_text.removeprefix(PRIVATE_PREFIX), validate=True)
