"""One webhook endpoint as it is registered: its filters, what is sealed in it, and its record in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache

from bridge.cvm_scope import CvmScope, Identified, holds
from bridge.events import TRANSITION, Event, dumps, lets_through
from bridge.reference_sets import Kind, Reference, ReferenceSet, parse
from bridge.store.foreign import flag, json_object
from bridge.store.record_fields import choice_of, number_of, position_of, text_of, texts_by_name, texts_of, whole_of
from bridge.webhook_formats import FORMATS, SIGNATURES, Format, Signature

MOST_ENDPOINTS = 10_000
"""Every dispatcher keeps all of them in memory, unsealed, and one event may have to be queued for each."""

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""An endpoint's id becomes part of Redis keys and of the `webhook-id` header."""

BROKEN = "broken: its record in Redis cannot be read; delete it, or register it again with PUT"
"""The `disabled_reason` of such an endpoint."""


@lru_cache(maxsize=2 * MOST_ENDPOINTS)
def stored_references(texts: tuple[str, ...]) -> ReferenceSet:
    """The references of an endpoint's record; a text that the bridge did not write stands for itself alone."""
    return ReferenceSet.of(map(_stored_reference, texts))


def _stored_reference(text: str) -> Reference:
    try:
        return parse(text)
    except ValueError:
        return Reference(text, Kind.CVM, text)


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A signing secret or a private key as it is stored in Redis; `expires_at_ms` is None for the current one."""

    text: str
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One registered URL. Empty filters let all through. `create` sets `created_*`; it gets only newer events.

    `request`: a mark of the request that made it, "" if that had no idempotency key.
    `rate`: attempts that may begin in a second; `concurrency`: attempts at once. None: no limit of its own.
    `cvms` and `reach` hold ids, apps and patterns.
    `owner`: the name of the token that made it; empty: an administrator's. `reach`: the CVMs that the owner may see
    at present, beyond which it gets nothing; None: all. Front ends keep it up to date, because only they have tokens.
    `keys_sealed`: private keys (`webhook_keys.py`) of an endpoint that has, or had, `v1a` among its `signatures`.
    `keys_suffix`: random, the end of the address of its public keys: without it nobody finds them by an id.
    """

    id: str
    url_sealed: str
    _: KW_ONLY
    description: str = ""
    cvms: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    ready: bool | None = None
    """Only events whose `data` has this `ready`; None lets all through."""
    types: tuple[str, ...] = (TRANSITION,)
    format: Format = "standard"
    rate: float | None = None
    concurrency: int | None = None
    headers_sealed: Mapping[str, str] = field(default_factory=dict)
    secrets_sealed: tuple[SealedSecret, ...] = ()
    signatures: tuple[Signature, ...] = ("v1",)
    keys_sealed: tuple[SealedSecret, ...] = ()
    keys_suffix: str = ""
    owner: str = ""
    reach: tuple[str, ...] | None = None
    enabled: bool = True
    disabled_reason: str | None = None
    created_at: str = ""
    created_after: str = ""
    created_log_id: str = ""
    request: str = ""

    @property
    def own_limits(self) -> tuple[object, object]:
        """`concurrency` and `rate` as the scripts take them."""
        return self.concurrency or "", self.rate or ""

    @property
    def broken(self) -> bool:
        """Its record in Redis cannot be read: only its id is known."""
        return not self.url_sealed

    @property
    def named(self) -> ReferenceSet | None:
        """The CVMs whose events it gets at most; None: all."""
        texts = self.cvms or self.reach
        return None if texts is None else stored_references(texts)

    @property
    def demands(self) -> ReferenceSet:
        """What must be watched because it names it, as far as its owner may see sets; see `CvmScope.demands`."""
        named = stored_references(self.cvms) if self.cvms else None
        return CvmScope(named, None if self.reach is None else stored_references(self.reach)).demands

    def reaches(self, cvm: Identified) -> bool:
        """Whether its owner may see this CVM, as an event about it or its snapshot tells."""
        return self.reach is None or holds(stored_references(self.reach), cvm)

    def wants(self, event: Event, from_: str | None, to: str | None, ready: bool | None = None) -> bool:
        """Whether its filters let such an event through; `from_`, `to` and `ready` are None if the event has none.

        A notice only if they name its type, and never one about itself.
        """
        return (
            lets_through(event.type, self.types)
            and (not self.cvms or holds(stored_references(self.cvms), event))
            and self.reaches(event)
            and event.endpoint_id != self.id
            and (not self.from_ or from_ in self.from_)
            and (not self.to or to in self.to)
            and (self.ready is None or ready is self.ready)
        )

    def to_json(self) -> str:
        """As it is stored. Whether it is enabled is stored elsewhere, because scripts switch it."""
        created = {"created_after": self.created_after, "created_birth": self.created_log_id}
        return f"{self.head()},{dumps(created)[1:]}"

    def head(self) -> str:
        """The JSON without the members that the creating script adds, and without its closing brace."""
        fields = dumps(
            {
                "url": self.url_sealed,
                "description": self.description,
                "cvms": self.cvms,
                "from": self.from_,
                "to": self.to,
                "ready": self.ready,
                "types": self.types,
                "format": self.format,
                "rate": self.rate,
                "concurrency": self.concurrency,
                "headers": dict(self.headers_sealed),
                "secrets": [[secret.text, secret.expires_at_ms] for secret in self.secrets_sealed],
                "signatures": self.signatures,
                "keys": [[key.text, key.expires_at_ms] for key in self.keys_sealed],
                "keys_suffix": self.keys_suffix,
                "owner": self.owner,
                "reach": self.reach,
                "created_at": self.created_at,
                "request": self.request,
            }
        )
        return fields[:-1]

    @classmethod
    def from_json(cls, endpoint_id: str, text: str, disabled: str | None) -> Endpoint:
        """`disabled`: None while it is enabled, else the reason ("" if a caller disabled it).

        Raises ValueError, KeyError or TypeError for damaged JSON.
        """
        fields = json_object(text)
        made = cls(
            endpoint_id,
            text_of(fields["url"]),
            description=text_of(fields["description"]),
            cvms=texts_of(fields["cvms"]),
            from_=texts_of(fields["from"]),
            to=texts_of(fields["to"]),
            ready=flag(fields.get("ready")),
            types=texts_of(fields["types"]),
            format=choice_of(fields["format"], FORMATS),
            rate=number_of(fields.get("rate")),
            concurrency=whole_of(fields.get("concurrency")),
            headers_sealed=texts_by_name(fields["headers"]),
            secrets_sealed=tuple(_secret(*each) for each in fields["secrets"]),
            # A record of before has none of these.
            signatures=tuple(choice_of(each, SIGNATURES) for each in texts_of(fields.get("signatures", ["v1"]))),
            keys_sealed=tuple(_secret(*each) for each in fields.get("keys", [])),
            keys_suffix=text_of(fields.get("keys_suffix", "")),
            owner=text_of(fields.get("owner", "")),
            reach=None if (reach := fields.get("reach")) is None else texts_of(reach),
            enabled=disabled is None,
            disabled_reason=disabled or None,
            created_at=text_of(fields["created_at"]),
            created_after=position_of(fields["created_after"]),
            created_log_id=text_of(fields["created_birth"]),
            request=text_of(fields.get("request", "")),
        )
        if made.broken or not made.signatures:
            raise ValueError
        return made


def _secret(text: object, expires_at_ms: object) -> SealedSecret:
    if expires_at_ms is not None and not isinstance(expires_at_ms, int):
        raise TypeError
    return SealedSecret(text_of(text), expires_at_ms)
