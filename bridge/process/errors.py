"""Why a command cannot run."""

from __future__ import annotations


class StartError(Exception):
    """the command cannot run as it is set up; the text is one line that tells why, and what helps"""
