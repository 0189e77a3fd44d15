"""A real Chromium that tests drive with Playwright.

Nothing is skipped where it is missing: `make test` installs it. As a command, this exits with 1 if it is missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from tests.servers import PATIENCE, eventually

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

HOST = "bridge.test"
"""A name that the browser resolves to 127.0.0.1. To the browser it is some host of the network: over plain HTTP it is
no secure context, and requests to it have no `Sec-Fetch-` headers."""

STRANGER = "evil.test"
"""Another one: a stranger has it resolved to this machine."""

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root may not use it
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--remote-debugging-port=0",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP {STRANGER} 127.0.0.1",
)


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(*options: str) -> Iterator[str]:
    """A browser with a profile of its own; the address at which it is controlled. `options` are added to ours."""
    program = find()
    assert program, "Chromium is missing: `make test` installs it (apt-get install chromium)"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [program, *OPTIONS, *options, f"--user-data-dir={home}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield _address(Path(home, "DevToolsActivePort"), process)
            finally:
                process.terminate()
                process.wait(PATIENCE)


def _address(written: Path, process: subprocess.Popen[bytes]) -> str:
    def ready() -> bool:
        assert process.poll() is None, f"Chromium ended with {process.returncode}"
        return written.exists() and bool(re.match(r"\d+\n", written.read_text()))

    eventually(ready, "Chromium's port")
    return f"http://127.0.0.1:{written.read_text().split()[0]}"


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Browser]:
    """`new_context()` has windows, all of them shown; `contexts[0]` is one window, whose pages are tabs."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(address, no_defaults=True)
        try:
            yield browser
        finally:
            await browser.close()


if __name__ == "__main__":
    sys.exit(find() is None)
