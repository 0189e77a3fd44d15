"""What another process answers to a request on a new connection, if it does."""

from __future__ import annotations

import httpx

from tests.servers import PATIENCE


def status(url: str) -> int:
    """0 while nothing listens."""
    try:
        return httpx.get(url, timeout=PATIENCE).status_code
    except httpx.TransportError:
        return 0


def readiness(port: int) -> tuple[int, str]:
    """Status of /readyz, and the reason; (0, "") while nothing listens."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.json().get("reason", "")
