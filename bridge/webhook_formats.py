"""The forms of webhook bodies, and the schemes that sign them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Format = Literal["standard", "cloudevents", "phala", "slack", "discord", "teams", "ntfy"]

FORMATS: Mapping[Format, str] = {
    "standard": "application/json",
    "cloudevents": "application/cloudevents+json",
    "phala": "application/json",
    "slack": "application/json",
    "discord": "application/json",
    "teams": "application/json",
    "ntfy": "text/plain; charset=utf-8",
}
"""The formats of webhook bodies and the content type of each; `docs/contract.md#webhooks` describes them."""

Signature = Literal["v1", "v1a"]
"""Standard Webhooks' schemes: HMAC-SHA256 with a shared secret, and ed25519 with a key pair."""

SIGNATURES: tuple[Signature, ...] = get_args(Signature)

KEY_PAIR_FORMATS: tuple[Format, ...] = ("standard", "cloudevents")
"""The formats that `v1a` goes with: receivers of the others do not verify it."""
