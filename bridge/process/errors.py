"""What keeps a command from running."""

from __future__ import annotations


class RefusalError(Exception):
    """a command cannot run as it is set up; one line says why and what helps"""
