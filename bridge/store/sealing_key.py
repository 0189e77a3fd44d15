"""Which parts of an endpoint are sealed, and the key that a process seals them with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Protocol

from bridge.sealing import Sealer
from bridge.store.endpoint_record import Endpoint, SealedSecret


class SealingKey(Protocol):
    """The key that this process seals with, which Redis must have a check value of before anything is sealed."""

    @property
    def id(self) -> str:
        """ "" for any key."""

    def renewed(self, sealed: str) -> str:
        """Sealed with this key."""

    async def register(self) -> None:
        """Makes the check value. Raises UnopenedError where other keys have sealed."""


class AnyKey:
    """Of a process that seals nothing, and only passes on what others have sealed."""

    id = ""

    def renewed(self, sealed: str) -> str:
        return sealed

    async def register(self) -> None:
        pass


def sealed_texts(endpoint: Endpoint) -> tuple[str, ...]:
    """All of it that is sealed."""
    secrets = (secret.text for secret in chain(endpoint.secrets_sealed, endpoint.keys_sealed))
    return (endpoint.url_sealed, *endpoint.headers_sealed.values(), *secrets)


def openers(endpoint: Endpoint, sealer: Sealer) -> set[str | None]:
    """The ids of the keys that open what is sealed in it; None among them if nothing opens a part."""
    return {sealer.opener(text) for text in sealed_texts(endpoint)}


def resealed(endpoint: Endpoint, renew: Callable[[str], str]) -> Endpoint:
    """The same with `renew` of each sealed text."""

    def renewed(secrets: tuple[SealedSecret, ...]) -> tuple[SealedSecret, ...]:
        return tuple(replace(each, text=renew(each.text)) for each in secrets)

    return replace(
        endpoint,
        url_sealed=renew(endpoint.url_sealed),
        headers_sealed={name: renew(text) for name, text in endpoint.headers_sealed.items()},
        secrets_sealed=renewed(endpoint.secrets_sealed),
        keys_sealed=renewed(endpoint.keys_sealed),
    )
