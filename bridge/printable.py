"""Text from elsewhere, on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Control characters and line ends escaped, so that a CVM's name cannot write to the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
