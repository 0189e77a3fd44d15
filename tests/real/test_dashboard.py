"""The views of the dashboard in a real Chromium, on one bridge that has an hour behind it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests import node
from tests.browsers import connected
from tests.demonstration import Demonstration, demonstration
from tests.real.fronts import front
from tests.real.test_browser import TOKENS
from tests.servers import PATIENCE, RealServer

expect.set_options(timeout=PATIENCE * 1000)
pytestmark = pytest.mark.asyncio(loop_scope="module")

AXE = Path(node.__file__).parent / "node_modules/axe-core/axe.min.js"

THINNED = """() => document.querySelectorAll("main > section:nth-of-type(n + 3), .contents li:nth-of-type(n + 9)")
  .forEach(part => part.remove())"""
"""The reference has a thousand parts of the same few forms: axe would take half a minute for all of them."""

PAGER = "#view=webhooks&endpoint=wh_pager"

FAULTS = """rules => axe.run({resultTypes: ["violations"], ...rules}).then(({violations}) =>
  violations.map(({id, nodes}) => [id, ...nodes.slice(0, 3).map(({html}) => html)]))"""

CUT_OFF = """() => {
  const texts = document.querySelectorAll(
    ".bar *, #slots span, .tools *, #cvms button, #cvms span, .actions *, summary, #facts dd, .axis *");
  const parts = [document.documentElement, ...texts].filter(part => !part.title);
  return parts.filter(part => part.scrollWidth > part.clientWidth && part.clientWidth > 0).map(part => part.outerHTML);
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(server_binary: Path) -> AsyncIterator[Demonstration]:
    with RealServer(server_binary) as server:
        async with demonstration(server.url) as made:
            yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def context(browser_address: str) -> AsyncIterator[BrowserContext]:
    """Without the page's policy: axe is put into it."""
    async with connected(browser_address) as browser:
        made = await browser.new_context(bypass_csp=True)
        yield made
        await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    made = await context.new_page()
    yield made
    await made.close()


async def opened(page: Page, shown: Demonstration, fragment: str = "") -> None:
    await page.goto(f"{shown.bridge.url}/{fragment}")
    await expect(page.locator("#connection")).to_have_text("Live")


async def both_schemes(page: Page) -> None:
    """axe finds nothing, light or dark. Colours are all that differs."""
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    await page.add_script_tag(path=AXE)
    assert await page.evaluate(FAULTS, {}) == []
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert await page.evaluate(FAULTS, {"runOnly": ["color-contrast"]}) == []


async def reached(page: Page, target: Locator) -> None:
    """By the tab key."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"no tab stop: {target}")


async def test_a_transition_is_shown_as_it_happens(page: Page, shown: Demonstration) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await opened(page, shown)
    changed = shown.bridge.ids[5]
    await shown.bridge.patch(changed, status="stopping")
    row = page.locator("#rows tr", has_text=changed)
    await expect(row.locator(".c-status")).to_contain_text("stopping")
    name = await row.locator(".c-name button").inner_text()
    news = page.locator("#feed li", has_text=name).filter(has_text="running → stopping")
    await expect(news).to_have_count(1)
    assert {url for url in asked if not url.startswith((shown.bridge.url, "data:"))} == set()


async def test_a_cvms_past_is_a_picture_and_goes_on(page: Page, shown: Demonstration) -> None:
    await opened(page, shown, f"#cvm={shown.changed}")
    status, ready, trust = (page.locator(".lane").nth(index).locator(".part") for index in range(3))
    was = ["running", "restarting", "starting", "running", "stopping", "stopped", "starting", "running"]
    await expect(status).to_have_text(was)
    await expect(ready).to_have_text(["ready", "not ready"] * 2 + ["ready"])
    await expect(trust).to_have_text(["fresh", "stale: unreachable", "fresh"])
    await expect(page.locator("#timeline")).to_have_attribute(
        "aria-label", re.compile("status running for .*not ready for")
    )
    await shown.bridge.patch(shown.changed, status="stopping")
    await expect(status).to_have_text([*was, "stopping"])
    await shown.bridge.patch(shown.changed, status="running")
    await expect(status).to_have_text([*was, "stopping", "running"])


async def test_what_is_shown_stands_in_the_address(page: Page, shown: Demonstration) -> None:
    await opened(page, shown)
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(9)
    await page.click("#tallies [data-key='=error']")
    await expect(rows).to_have_count(1)
    await rows.locator("button").click()
    await expect(page.locator("#more")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#more")).to_be_hidden()
    await page.fill("#search", "nothing has this name")
    await expect(rows).to_have_count(0)
    await page.reload()
    await expect(page.locator("#empty")).to_have_text("No CVM matches.")
    await expect(page.locator("#search")).to_have_value("nothing has this name")
    for _ in range(3):
        await page.go_back()
    await expect(rows).to_have_count(9)
    await page.go_forward()
    await expect(rows).to_have_count(1)


async def test_endpoints_are_shown_with_their_health_and_something_can_be_done(
    page: Page, shown: Demonstration
) -> None:
    await opened(page, shown)
    await expect(page.locator("#notice")).to_contain_text("1 webhook endpoint failing: wh_pager.")
    await expect(page.locator("#notice")).to_contain_text("1 webhook endpoint disabled: wh_chat.")
    await page.click("text=Webhooks")
    chat = page.locator("#endpoints tr", has_text="Team chat")
    await expect(chat).to_contain_text("the receiver answered 410 Gone")
    await expect(page.locator("#endpoints tr", has_text="On-call pager").locator(".e-breaker")).to_contain_text("open")
    await chat.locator("a").click()
    await expect(page.locator("#facts")).to_contain_text("disabled, the receiver answered 410 Gone")
    await page.click("#enable")
    await expect(page.locator("#done")).to_have_text("It is enabled.")
    await expect(chat.locator(".e-health")).to_have_text("ok")
    await page.click("#test")
    await expect(page.locator("#deliveries details[open]")).to_contain_text("webhook.test")
    await page.click("#recover")
    await expect(page.locator("#done")).to_contain_text("queued")
    await page.select_option("#delivery-status", "delivered")
    await expect(page.locator("#no-deliveries")).to_be_visible()


async def test_attempts_of_a_delivery_are_shown_and_it_is_tried_at_once(page: Page, shown: Demonstration) -> None:
    await opened(page, shown, PAGER)
    tried = page.locator("#deliveries li", has_text="1 attempt").first
    await tried.locator("summary").click()
    await expect(tried.locator("ol li")).to_contain_text("503, http_5xx: 503 Service Unavailable in 82 ms")
    await expect(tried.locator("summary")).to_contain_text("next at")
    await tried.locator("button").click()
    await expect(page.locator("#done")).to_have_text("It is queued.")
    await expect(tried.locator("summary")).to_contain_text("due now")
    assert "delivery=" in page.url


async def test_axe_finds_nothing_and_nothing_is_cut_off(page: Page, shown: Demonstration) -> None:
    for fragment, ready in (("", "#rows tr"), (f"#cvm={shown.changed}", ".part"), (PAGER, "#deliveries li")):
        await page.goto("about:blank")
        await opened(page, shown, fragment)
        await expect(page.locator(ready).first).to_be_visible()
        await both_schemes(page)
        for width in (390, 820, 1400):
            await page.set_viewport_size({"width": width, "height": 900})
            assert await page.evaluate(CUT_OFF) == []


async def test_axe_finds_nothing_in_the_dialog_for_a_token_and_in_the_reference(
    page: Page, shown: Demonstration, redis_url: str
) -> None:
    async with front(redis_url, tokens=TOKENS, open_access=False) as web:
        await page.goto(web.url)
        await page.fill("#token", "wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#ask-fault")).to_have_text("The bridge does not know this token.")
        await both_schemes(page)
        await page.goto("about:blank")
    await page.goto(f"{shown.bridge.url}/docs")
    for width in (1400, 820, 390):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate(CUT_OFF) == []
    await page.evaluate(THINNED)
    await both_schemes(page)


async def test_the_webhooks_are_used_by_keys_alone(page: Page, shown: Demonstration) -> None:
    await opened(page, shown, "#view=webhooks")
    pager = page.locator("#endpoints a", has_text="On-call pager")
    await reached(page, page.locator("#health"))
    await page.keyboard.type("failing")
    await expect(page.locator("#endpoints tr")).to_have_count(1)
    await reached(page, pager)
    await page.keyboard.press("Enter")
    await expect(page.locator("#endpoint-title")).to_be_focused()
    assert "health=failing" in page.url
    delivery = page.locator("#deliveries summary").first
    await reached(page, delivery)
    await page.keyboard.press("Enter")
    await expect(page.locator("#deliveries details[open]")).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(page.locator("#deliveries button").first).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#endpoint")).to_be_hidden()
    await expect(pager).to_be_focused()
    await page.keyboard.press("Enter")
    await reached(page, page.locator("#endpoint-close"))
    await page.keyboard.press("Enter")
    await expect(pager).to_be_focused()


async def test_the_cvms_are_used_by_keys_alone(page: Page, shown: Demonstration) -> None:
    await opened(page, shown)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#view-cvms")).to_be_focused()
    await reached(page, page.locator("[data-sort=status]"))
    await page.keyboard.press("Enter")
    name = page.locator("#rows tr", has_text=shown.bridge.ids[6]).locator("button")
    await reached(page, name)
    place = "button => button.closest('tr').rowIndex"
    before = await name.evaluate(place)
    await shown.bridge.patch(shown.bridge.ids[6], status="error")
    await page.wait_for_function(f"({place})(document.querySelector('#rows button:focus') ?? arguments[0]) < {before}")
    await expect(name).to_be_focused()
    assert await name.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    await reached(page, page.locator("#period"))
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("#period")).to_have_value("6h")
    await page.keyboard.press("Escape")
    await expect(name).to_be_focused()
    await shown.bridge.patch(shown.bridge.ids[6], status="running")


async def test_a_missing_dispatcher_is_told(page: Page, shown: Demonstration) -> None:
    await shown.dispatch(working=False)
    await opened(page, shown, "#view=webhooks")
    notice = page.locator("#notice")
    await expect(notice).to_contain_text("Webhooks wait, no dispatcher since 2026-11-24T16:00:00.000Z")
    await shown.dispatch(working=True)
    await expect(notice).to_contain_text("wh_pager")
