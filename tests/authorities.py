"""The certificate authorities, which each httpx client reads for itself."""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any

import certifi


def read_once() -> None:
    """Clients of this process share them from now on: reading takes 20 ms each time."""
    fresh = ssl.create_default_context
    shared = functools.cache(lambda file: fresh(cafile=file))
    usual = {certifi.where(), os.environ.get("SSL_CERT_FILE")}

    def create(*purpose: ssl.Purpose, **given: Any) -> ssl.SSLContext:
        is_usual = not purpose and given.keys() == {"cafile"} and given["cafile"] in usual
        return shared(given["cafile"]) if is_usual else fresh(*purpose, **given)

    ssl.create_default_context = create
