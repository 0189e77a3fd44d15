"""What of an endpoint is secret: sealed on its way to Redis, shown once or never (contract sections 4 and 8)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import SecretStr

from bridge.clock import Clock
from bridge.sealing import Sealer, SealError
from bridge.store.endpoints import Endpoint, SealedSecret
from bridge.web.api.webhook_models import HIDDEN, SECRET_PREFIX
from bridge.web.http.problems import ProblemError

OLD_SECRET_SECONDS = 86_400
"""How long a secret goes on signing after it was replaced."""

MOST_OLD_SECRETS = 4
"""Signatures beside the current one; whoever rotates more often within a day loses the oldest."""


class Vault:
    """`keys`: of BRIDGE_SECRET_KEY. Without any it can only tell that it lacks them."""

    def __init__(
        self,
        keys: Sequence[SecretStr],
        clock: Clock,
        make_key: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        self._sealer = Sealer(keys) if keys else None
        self._clock = clock
        self._make_key = make_key

    def check(self) -> Sealer:
        """Raises ProblemError 503 where there is no key."""
        if self._sealer is None:
            raise ProblemError(
                503,
                "no-secret-key",
                "Webhooks need BRIDGE_SECRET_KEY, which is not set",
                detail="set it to what `bridge keygen` prints, the same for every `bridge web` and `bridge dispatcher`",
            )
        return self._sealer

    def seal(self, text: str) -> str:
        return self.check().seal(text)

    def seal_values(self, plain: Mapping[str, str]) -> dict[str, str]:
        return {name: self.seal(value) for name, value in plain.items()}

    def shown_url(self, endpoint: Endpoint) -> str | None:
        """Without its query, which may be a secret. None where this front end lacks the key to it."""
        try:
            plain, mark, _ = self._sealer.open(endpoint.url_sealed).partition("?") if self._sealer else ("", "", "")
        except SealError:
            return None
        return f"{plain}?{HIDDEN}" if mark else plain or None

    def new_secret(self) -> str:
        return SECRET_PREFIX + base64.b64encode(self._make_key()).decode()

    def with_secret(self, endpoint: Endpoint, secret: str) -> Endpoint:
        """Signed with this one alone."""
        return replace(endpoint, secrets_sealed=(SealedSecret(self.seal(secret)),))

    def rotated(self, endpoint: Endpoint, secret: str) -> Endpoint:
        """The new secret first; what signed until now goes on for a day, what is over leaves."""
        now = round(self._clock.time() * 1000)
        until = now + OLD_SECRET_SECONDS * 1000
        old = [SealedSecret(each.text, min(each.expires_at_ms or until, until)) for each in endpoint.secrets_sealed]
        alive = [each for each in old if (each.expires_at_ms or until) > now]
        sealed = SealedSecret(self.seal(secret)), *alive[:MOST_OLD_SECRETS]
        return replace(endpoint, secrets_sealed=sealed)

    def signs_with(self, endpoint: Endpoint, secret: str) -> bool:
        """Whether it is the current one."""
        try:
            current = self.check().open(endpoint.secrets_sealed[0].text) if endpoint.secrets_sealed else ""
        except SealError:
            return False
        return secrets.compare_digest(current.encode(), secret.encode())
