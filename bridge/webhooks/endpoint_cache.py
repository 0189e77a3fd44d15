"""A process's copy of the endpoints, kept by revision; their secrets are unsealed once and not per attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.store.endpoint_notices import about_endpoint
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints, EndpointSet
from bridge.webhook_keys import private_key
from bridge.webhooks import metrics
from bridge.webhooks.matching import Matcher


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """An endpoint's unsealed values for attempts; never logged.

    `secrets`, `keys`: (what signs, expires at ms or None), of the schemes that it wants. `about`: what notices show of
    it.
    """

    url: str
    headers: Mapping[str, str]
    secrets: tuple[tuple[str, int | None], ...]
    keys: tuple[tuple[Ed25519PrivateKey, int | None], ...]
    about: str

    def valid_secrets(self, at: float) -> list[str]:
        """The ones to sign with at this Unix time, newest first."""
        return _valid(self.secrets, at)

    def valid_keys(self, at: float) -> list[Ed25519PrivateKey]:
        """The same of private keys."""
        return _valid(self.keys, at)


T = TypeVar("T")


def _valid(given: Iterable[tuple[T, int | None]], at: float) -> list[T]:
    return [each for each, expires in given if expires is None or expires > at * 1000]


class EndpointCache:
    """`at(revision)` brings it up to date; the other methods answer from memory."""

    def __init__(self, endpoints: Endpoints, unseal: Callable[[str], str]) -> None:
        self._endpoints = endpoints
        self._unseal = unseal
        self._opened: dict[str, Opened] = {}
        self._matcher: Matcher | None = None
        self.endpoint_set = EndpointSet(0, {})

    async def at(self, revision: int) -> EndpointSet:
        """Reads the changes if `revision` is not the cached one. Raises StoreError."""
        if self.endpoint_set.revision != revision:
            known = await self._endpoints.all(self.endpoint_set)
            before, now = self.endpoint_set.endpoints, known.endpoints
            self._opened = {
                each: opened for each, opened in self._opened.items() if each in now and before.get(each) == now[each]
            }
            self.endpoint_set = known
            on = sum(endpoint.enabled for endpoint in now.values())
            metrics.ENDPOINTS.labels("enabled").set(on)
            metrics.ENDPOINTS.labels("disabled").set(len(now) - on)
            metrics.ENDPOINTS.labels("broken").set(len(known.broken))
        return self.endpoint_set

    @property
    def matcher(self) -> Matcher:
        if self._matcher is None or self._matcher.revision != self.endpoint_set.revision:
            self._matcher = Matcher(self.endpoint_set)
        return self._matcher

    def opened(self, endpoint_id: str) -> Opened | None:
        """None if there is no such endpoint (any more). Raises SealError if a value cannot be unsealed."""
        found = self._opened.get(endpoint_id)
        endpoint = self.endpoint_set.endpoints.get(endpoint_id)
        if found is None and endpoint is not None:
            found = self._opened[endpoint_id] = self._open(endpoint)
        return found

    def _open(self, endpoint: Endpoint) -> Opened:
        secrets = endpoint.secrets_sealed if "v1" in endpoint.signatures else ()
        keys = endpoint.keys_sealed if "v1a" in endpoint.signatures else ()
        url = self._unseal(endpoint.url_sealed)
        return Opened(
            url,
            {name: self._unseal(value) for name, value in endpoint.headers_sealed.items()},
            tuple((self._unseal(each.text), each.expires_at_ms) for each in secrets),
            tuple((private_key(self._unseal(each.text)), each.expires_at_ms) for each in keys),
            about_endpoint(url, endpoint.description),
        )
