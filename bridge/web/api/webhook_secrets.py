"""An endpoint's secrets and key pairs: sealed on their way to Redis (`docs/contract.md#webhooks`).

A secret is shown once or never, a private key never, a public key always.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import replace

from pydantic import SecretStr

from bridge.addresses import parse_url, without_path
from bridge.clock import Clock
from bridge.sealing import Sealer, SealError
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.web.api.webhook_models import HIDDEN, OVERLAP_SECONDS, SECRET_PREFIX
from bridge.web.http.problems import ProblemError, ProblemType, invalid
from bridge.webhook_formats import KEY_PAIR_FORMATS
from bridge.webhook_keys import new_private_text, public_bytes

MOST_OLD_SECRETS = 4
"""Signatures beside the current one, of each scheme; further rotations meanwhile drop the oldest."""

SUFFIX_BYTES = 16
"""Of chance in the address of an endpoint's public keys."""


class WebhookSecrets:
    """`keys` are those of BRIDGE_SECRET_KEY; without any, all that seals or opens raises ProblemError 503."""

    def __init__(self, keys: Sequence[SecretStr], clock: Clock) -> None:
        self._sealer = Sealer(keys) if keys else None
        self._clock = clock

    def check(self) -> Sealer:
        """Raises ProblemError 503 without a key."""
        if self._sealer is None:
            raise ProblemError(
                ProblemType.NO_SECRET_KEY,
                "set it to a key that `bridge keygen` prints, the same for every `bridge web` and `bridge dispatcher`",
            )
        return self._sealer

    def seal(self, text: str) -> str:
        return self.check().seal(text)

    def shown_url(self, endpoint: Endpoint, *, path: bool) -> str | None:
        """Without its query, and if not `path` without its path: both may be secrets. None if this front end lacks the
        key that opens it.
        """
        try:
            url = self._sealer.open(endpoint.url_sealed) if self._sealer else ""
        except SealError:
            return None
        if not path:
            return without_path(url) or None
        plain, mark, _ = url.partition("?")
        return f"{plain}?{HIDDEN}" if mark else plain or None

    def leads_elsewhere(self, endpoint: Endpoint, url: str) -> bool:
        """Whether `url` has another scheme, host or port than the endpoint's; True if that one cannot be opened."""
        try:
            old = self.check().open(endpoint.url_sealed)
        except SealError:
            return True
        return (old.partition(":")[0].lower(), parse_url(old)) != (url.partition(":")[0].lower(), parse_url(url))

    def new_secret(self) -> str:
        return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()

    def with_keys(self, endpoint: Endpoint) -> Endpoint:
        """With a key pair if its signatures need one that it does not have.

        Raises ProblemError 422 if they do not go with its format.
        """
        if "v1a" not in endpoint.signatures:
            return endpoint
        if endpoint.format not in KEY_PAIR_FORMATS:
            raise invalid("signatures", f"v1a goes with the formats {' and '.join(KEY_PAIR_FORMATS)} only")
        if endpoint.keys_sealed:
            return endpoint
        made = (SealedSecret(self.seal(new_private_text())),)
        return replace(endpoint, keys_sealed=made, keys_suffix=secrets.token_urlsafe(SUFFIX_BYTES))

    def public_keys(self, endpoint: Endpoint) -> list[tuple[bytes, int | None]]:
        """The raw public keys whose signatures count now, the current one first, and when each ends (Unix ms).

        None are given without `v1a`. Raises SealError.
        """
        now = self._clock.time() * 1000
        counting = [each for each in endpoint.keys_sealed if each.expires_at_ms is None or each.expires_at_ms > now]
        keys = counting if "v1a" in endpoint.signatures else []
        return [(public_bytes(self.check().open(each.text)), each.expires_at_ms) for each in keys]

    def rotated(self, endpoint: Endpoint, secret: str, overlap_seconds: int = OVERLAP_SECONDS) -> Endpoint:
        """The new secret and key pair first; the old ones that are still valid sign for at most the overlap."""
        keys = self._followed(endpoint.keys_sealed, new_private_text(), overlap_seconds) if endpoint.keys_sealed else ()
        return replace(
            endpoint, secrets_sealed=self._followed(endpoint.secrets_sealed, secret, overlap_seconds), keys_sealed=keys
        )

    def _followed(self, before: Sequence[SealedSecret], text: str, overlap_seconds: int) -> tuple[SealedSecret, ...]:
        now = round(self._clock.time() * 1000)
        until = now + overlap_seconds * 1000
        old = [SealedSecret(each.text, min(each.expires_at_ms or until, until)) for each in before]
        alive = [each for each in old if (each.expires_at_ms or until) > now]
        return SealedSecret(self.seal(text)), *alive[:MOST_OLD_SECRETS]

    def signs_with(self, endpoint: Endpoint, secret: str) -> bool:
        """Whether it is the current one."""
        return secrets.compare_digest((self.current(endpoint) or "").encode(), secret.encode())

    def current(self, endpoint: Endpoint) -> str | None:
        """The signing secret; None if there is none, or this front end lacks the key that opens it."""
        try:
            return self.check().open(endpoint.secrets_sealed[0].text) if endpoint.secrets_sealed else None
        except SealError:
            return None
