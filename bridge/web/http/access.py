"""Authentication and authorization: tokens with scopes and CVMs, and short-lived stream tokens for browsers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn

from starlette.requests import HTTPConnection

from bridge.clock import Clock
from bridge.config import Token
from bridge.cvm_scope import Identified, holds
from bridge.events import dumps
from bridge.reference_sets import ReferenceSet, is_canonical, parse
from bridge.web.http.problems import ProblemError, ProblemType, unavailable

STREAM_TOKEN_SECONDS = 60
"""A stream token opens a connection; the connection may outlive it."""

UNSETTLED = ReferenceSet(cvm_ids=frozenset({""}))
"""Stands for the CVMs of a token one of whose names nobody can look up at the moment; no CVM has this id."""

Scope = Literal["read", "read all", "token", "admin"]
"""`all`: a token that is limited to CVMs is refused. `token`: a stream token is refused."""


MOST_FORMER = 10_000
"""Secrets of former tokens that are still known for what they were, at about 100 bytes each."""


@dataclass(eq=False, slots=True)
class Credential:
    """A token with the secret and the CVMs that it had at one time; all that it opened shares this.

    `Access` alone revokes it.
    """

    revoked: bool = False


LASTING = Credential()


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request. `cvms` are those that it may see: canonical ids, apps and patterns; None: all.

    Not `complete`: it may see more, but its token has a name that is still being looked up. A stream must end with its
    `credential`, also one that begins only after it was revoked.
    """

    name: str
    admin: bool
    cvms: ReferenceSet | None
    complete: bool = True
    credential: Credential = field(default=LASTING, compare=False, repr=False)

    def may_see(self, cvm: Identified) -> bool:
        return holds(self.cvms, cvm)

    def refuse(self) -> NoReturn:
        """The 403 of a CVM that it may not see, or that there is not; 503 while that is not known."""
        if not self.complete:
            raise unavailable("the CVMs of this token are being looked up", 5)
        raise ProblemError(ProblemType.FORBIDDEN, "it may not see this CVM")


ANYBODY = Principal("everybody", True, None)


class Access:
    """Decides by the tokens alone. `open_access`: every caller has full access."""

    def __init__(self, tokens: Iterable[Token], *, open_access: bool, clock: Clock) -> None:
        self._tokens: dict[str, Token] = {}
        self._secrets: list[tuple[bytes, str]] = []
        self._principals: dict[str, Principal] = {}
        self._former: dict[bytes, None] = {}
        self._open = open_access
        self._clock = clock
        self.change(tokens)

    def change(self, tokens: Iterable[Token]) -> frozenset[str]:
        """From now on these tokens count; returns the names of those that came, went or changed.

        The credential of a token that has gone, or whose secret or CVMs have changed, is revoked. What an unchanged one
        may see stays as it was looked up.
        """
        before, self._tokens = self._tokens, {token.name: token for token in tokens}
        for name, old in before.items():
            now = self._tokens.get(name)
            if now is None or (now.secret, now.cvms) != (old.secret, old.cvms):
                self._principals.pop(name).credential.revoked = True
        self._secrets = [(each.secret.get_secret_value().encode(), name) for name, each in self._tokens.items()]
        self._principals = {name: self._principal(each) for name, each in self._tokens.items()}
        self._remember(before.values())
        names = before.keys() | self._tokens.keys()
        return frozenset(name for name in names if before.get(name) != self._tokens.get(name))

    def _principal(self, token: Token) -> Principal:
        admin, known = token.scope == "admin", self._principals.get(token.name)
        if known is not None:
            return replace(known, admin=admin)
        cvms = ReferenceSet.parsed(token.cvms) if token.cvms else None
        return Principal(token.name, admin, cvms, not any(map(_is_name, token.cvms)), Credential())

    def _remember(self, tokens: Iterable[Token]) -> None:
        """Former tokens, which open nothing, are still no keys of anybody else."""
        for token in tokens:
            self._former[_digest(token.secret.get_secret_value())] = None
        while len(self._former) > MOST_FORMER:
            del self._former[next(iter(self._former))]

    @property
    def named(self) -> dict[str, frozenset[str]]:
        """By token, the names among its CVMs, where it has names, apps or patterns: see `credential`."""
        moving = [(name, each.cvms) for name, each in self._tokens.items() if not all(map(is_canonical, each.cvms))]
        return {name: frozenset(filter(_is_name, cvms)) for name, cvms in moving}

    @property
    def reaches(self) -> dict[str, ReferenceSet | None]:
        """By token, the CVMs that it may see at present (None: all), or `UNSETTLED` while a name is looked up."""
        return {name: each.cvms if each.complete else UNSETTLED for name, each in self._principals.items()}

    def grant(self, name: str, found: Iterable[str], *, complete: bool) -> ReferenceSet:
        """Lets a token see, from now on, the CVMs that its list has, and those `found` for its names; all of them."""
        cvms, before = ReferenceSet.parsed(self._tokens[name].cvms | frozenset(found)), self._principals[name].cvms
        if cvms == before:
            cvms = before  # the same object is quickly compared, and every open stream of the token has it
        self._principals[name] = replace(self._principals[name], cvms=cvms, complete=complete)
        return cvms

    def reader(self, connection: HTTPConnection) -> Principal:
        """Raises ProblemError 401; for a stream token that was valid once it is `TOKEN_EXPIRED`."""
        if self._open:
            return ANYBODY
        presented = _presented(connection)
        # The query is parsed only where no header decides: that takes 9 % of a connection's time.
        if presented is None and (passed := connection.query_params.get("access_token")):
            return self._by_stream_token(passed) or _refuse()
        return self._by_secret(presented) or _refuse()

    def holder(self, connection: HTTPConnection) -> Principal:
        """As `reader`, but refuses a stream token, which must not prolong itself. Raises ProblemError 401."""
        if self._open:
            return ANYBODY
        return self._by_secret(_presented(connection)) or _refuse()

    def admit(self, connection: HTTPConnection, scope: Scope | None) -> Principal:
        """The caller, if it has the scope; None admits any caller. Raises ProblemError 401 or 403."""
        if scope is None:
            return ANYBODY
        if scope == "token":
            return self.holder(connection)
        principal = self.reader(connection)
        if scope.startswith("admin") and not principal.admin:
            raise ProblemError(ProblemType.FORBIDDEN, "its scope is `read`")
        if scope.endswith("all") and principal.cvms is not None:
            raise ProblemError(ProblemType.FORBIDDEN, "it is limited to some CVMs, and this route is about all of them")
        return principal

    def knows(self, secret: str) -> bool:
        """Whether this is a credential of the bridge: a secret that a token has or had, or a stream token."""
        if self._by_secret(secret) is not None or _digest(secret) in self._former:
            return True
        return self._by_stream_token(secret) is not None

    def _by_secret(self, presented: str | None) -> Principal | None:
        if presented is None:
            return None
        found, given = None, presented.encode()
        # Every secret is compared, so that the time taken does not depend on the one that fits.
        for secret, name in self._secrets:
            if hmac.compare_digest(secret, given):
                found = self._principals[name]
        return found

    def stream_token(self, principal: Principal) -> tuple[str, int]:
        """A token for `?access_token=` that reads what `principal` may read, and its lifetime in seconds."""
        expires = int(self._clock.time()) + STREAM_TOKEN_SECONDS
        claims = base64.urlsafe_b64encode(dumps([principal.name, expires]).encode()).decode().rstrip("=")
        return f"{claims}.{self._sign(principal.name, claims)}", STREAM_TOKEN_SECONDS

    def _sign(self, name: str, claims: str) -> str:
        secret = self._tokens[name].secret.get_secret_value() if name in self._tokens else ""
        return hmac.new(f"bridge stream token:{secret}".encode(), claims.encode(), hashlib.sha256).hexdigest()

    def _by_stream_token(self, passed: str) -> Principal | None:
        claims, _, signature = passed.partition(".")
        try:
            padded = claims + "=" * (-len(claims) % 4)
            name, expires = json.loads(base64.urlsafe_b64decode(padded.encode()))
        except (ValueError, TypeError, RecursionError):
            return None
        token = self._tokens.get(str(name))
        genuine = hmac.compare_digest(self._sign(str(name), claims).encode(), signature.encode())
        if token is None or not genuine or not isinstance(expires, int):
            return None
        if expires <= self._clock.time():
            raise ProblemError(ProblemType.TOKEN_EXPIRED, "POST /v1/stream-tokens makes a new one")
        return replace(self._principals[token.name], admin=False)


def _refuse() -> NoReturn:
    raise ProblemError(
        ProblemType.UNAUTHORIZED,
        "send Authorization: Bearer <token> or X-API-Key: <token>",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _is_name(reference: str) -> bool:
    return not (parse(reference).is_set or is_canonical(reference))


def _presented(connection: HTTPConnection) -> str | None:
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return credentials.strip()
    return connection.headers.get("x-api-key")
