"""Makes the pictures of the README anew (`make screenshots`): the views of the dashboard, in the system's Chromium.

A picture is of one window, at a scale of one, and has a limit in bytes: beyond it this fails.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import Browser, expect

from tests.browsers import chromium, connected
from tests.demonstration import Demonstration, demonstration
from tests.servers import PATIENCE, RealServer, server_binary

IMAGES = Path(__file__).parent.parent / "docs/images"

MOST_BYTES = 150_000
"""Of one picture: a clone of the repository has all versions of it."""

VIEWS = (
    ("dashboard", "", "#rows tr", 1100, 700, "light"),
    ("timeline", "#cvm={}", ".part", 900, 560, "light"),
    ("webhooks", "#view=webhooks&endpoint=wh_pager", "#deliveries li", 1300, 560, "dark"),
)
"""Name, fragment, what must be there, width, height, scheme."""


async def make(address: str, shown: Demonstration) -> None:
    async with connected(address) as browser:
        for view in VIEWS:
            await _picture(browser, shown, *view)


async def _picture(
    browser: Browser, shown: Demonstration, name: str, fragment: str, ready: str, width: int, height: int, scheme: str
) -> None:
    dark = scheme == "dark"
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    page = await context.new_page()
    await page.goto(f"{shown.bridge.url}/{fragment.format(shown.changed)}")
    await expect(page.locator("#connection")).to_have_text("Live", timeout=PATIENCE * 1000)
    await page.locator(ready).first.wait_for()
    await page.locator("body").evaluate("() => document.activeElement.blur()")
    path = IMAGES / f"{name}.png"
    await page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    assert size <= MOST_BYTES, f"{path.name} has {size} bytes: make the window smaller"
    print(f"{path.relative_to(IMAGES.parent.parent)}: {width} × {height}, {size:,} bytes")
    await context.close()


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with RealServer(server_binary()) as server, chromium("--hide-scrollbars") as address:
        async with demonstration(server.url) as shown:
            await make(address, shown)


if __name__ == "__main__":
    asyncio.run(main())
