"""A page made of its files: styles and scripts inline, allowed by their hashes and nothing else (CSP level 2)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

_HERE = files(__package__)

POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Beside the hashes. Trusted types: no text can become markup or script."""


@dataclass(frozen=True, slots=True)
class Page:
    """A finished page and the headers that it needs."""

    html: str
    headers: Mapping[str, str]


def read(name: str) -> str:
    """A file of this package."""
    return (_HERE / name).read_text(encoding="utf-8")


def assemble(template: str, styles: Iterable[str], scripts: Iterable[str], **texts: str) -> Page:
    """`template`, `styles` and `scripts` are names of files; `texts` is markup for the template's `{{name}}`s."""
    style, code = "\n".join(map(read, styles)), "\n".join(map(read, scripts))
    parts = {"style": f"<style>{style}</style>", "script": f"<script>{code}</script>", "icon": icon(), **texts}
    html = read(template)
    for name, markup in parts.items():
        html = html.replace(f"{{{{{name}}}}}", markup)
    policy = f"{POLICY}; style-src {_hash(style)}; script-src {_hash(code)}"
    return Page(html, {"Content-Security-Policy": policy, **HEADERS})


HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def icon() -> str:
    """A small picture in the page itself."""
    picture = base64.b64encode(read("icon.svg").encode()).decode()
    return f'<link rel="icon" href="data:image/svg+xml;base64,{picture}">'
