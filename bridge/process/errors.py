"""The error that ends a command."""

from __future__ import annotations


class CommandError(Exception):
    """the command cannot run as it is set up; the text is one line that tells why and what helps"""
