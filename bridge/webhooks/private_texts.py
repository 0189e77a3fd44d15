"""The secrets of a request in the spellings that a receiver which quotes the request is likely to use."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

SHORTEST_PRIVATE = 4
"""Characters. A shorter text is not a secret, and hiding it would only damage the recorded body."""

SHORTEST_PART = 8
"""The same for a part that may also be a word: of a path, or of a header with several parts."""

_ORDINARY = re.compile(r"[a-z]{1,15}")
"""Parts of paths that are words and no secrets."""


def private_texts(url: str, headers: Mapping[str, str]) -> list[bytes]:
    """Longest first: the URL's path and query, and the values of custom headers with the credentials in them."""
    texts = set(_of_url(url))
    for name, value in headers.items():
        if name.lower() != "content-type" and not name.lower().startswith(("webhook-", "x-webhook-")):
            texts |= _of_header(value)
    return sorted(texts, key=len, reverse=True)


@lru_cache(4096)
def _of_url(url: str) -> frozenset[bytes]:
    parts = urlsplit(url)
    values = [part.partition("=")[2] for part in parts.query.split("&")]
    values += [value for _, value in parse_qsl(parts.query, keep_blank_values=True)]
    segments = [part for part in parts.path.split("/") if len(part) >= SHORTEST_PART and not _ORDINARY.fullmatch(part)]
    return _spelled([parts.query, *values, parts.path, *segments, *map(unquote, [parts.path, *segments])])


@lru_cache(4096)
def _of_header(value: str) -> frozenset[bytes]:
    """A receiver may name the key alone: without the scheme, the name, or the quotes it came in."""
    _, blank, rest = value.partition(" ")
    texts = [value, rest.strip()] if blank else [value]
    for part in re.split(r"[\s,;]+", value):
        bare = part.strip("\"'")
        texts += [each for each in (bare, bare.partition("=")[2].strip("\"'")) if len(each) >= SHORTEST_PART]
    return _spelled([*texts, *_of_basic(value)])


def _of_basic(value: str) -> Iterator[str]:
    """User and password of HTTP's Basic scheme (RFC 7617), together and each alone."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            plain = base64.b64decode(encoded.strip() + "==").decode()
        except ValueError:
            return
        user, _, password = plain.partition(":")
        yield from (plain, user, password)


def _spelled(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(each.encode() for text in texts for each in _spellings(text) if len(each) >= SHORTEST_PRIVATE)


def _spellings(text: str) -> set[str]:
    """As it is, in JSON, in HTML, %-encoded and in base64; skips a text that is too short to be a secret."""
    if len(text) < SHORTEST_PRIVATE:
        return set()
    in_json = json.dumps(text)[1:-1]
    encoded = {quote(text), quote(text, safe=""), quote_plus(text)}
    lower = {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), each) for each in encoded}
    in_base64 = base64.b64encode(text.encode()).decode()
    return {text, in_json, in_json.replace("/", r"\/"), html.escape(text), *encoded, *lower, in_base64.rstrip("=")}
