"""The dashboard and the event stream in a real Chromium, over plain HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, expect
from pydantic import SecretStr

from bridge.config import Settings
from bridge.sealing import Sealer, new_key
from bridge.store.endpoints import Endpoints
from bridge.store.watches import Watches
from bridge.web.api import events
from tests.browsers import HOST, STRANGER
from tests.lanes import endpoint
from tests.real.fronts import Front, front
from tests.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)

TOKENS = Settings.model_validate({"tokens": "all:rootsecret:admin one:onesecret:read:cvm-1"}).tokens


@pytest.fixture
async def web(redis_url: str) -> AsyncIterator[Front]:
    """A front end that needs a token, as one that is reached by its name does. It knows cvm-1."""
    async with front(redis_url, tokens=TOKENS, open_access=False) as made:
        await made.lead()
        await happens(made, "cvm-1")
        yield made


@pytest.fixture
async def window(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A real window: the tab that was opened last, or brought to the front, is shown and hides the others."""
    window = browser.contexts[0]
    before = list(window.pages)
    yield window
    for page in window.pages:
        if page not in before:
            await page.close()


async def opened(context: BrowserContext, web: Front, token: str = "rootsecret", scripts: Iterable[str] = ()) -> Page:
    page = await context.new_page()
    for script in (*scripts, f"sessionStorage.setItem('bridge-token', '{token}')"):
        await page.add_init_script(script)
    await page.goto(f"http://{HOST}:{web.port}/")
    return page


async def dashboard(
    context: BrowserContext, web: Front, token: str = "rootsecret", scripts: Iterable[str] = ()
) -> Page:
    """A page of the dashboard that is live; `scripts` run before its own."""
    page = await opened(context, web, token, scripts)
    await expect(page.locator("#connection")).to_have_text("Live")
    return page


async def stream_token(web: Front) -> str:
    answer = await web.http.post(f"{web.url}/v1/stream-tokens", headers={"X-API-Key": "rootsecret"})
    return str(answer.json()["access_token"])


async def happens(web: Front, cvm_id: str) -> None:
    """The first event of a watched CVM."""
    await Watches(web.backend).renew([cvm_id])
    await web.append(cvm_id)


async def shown(page: Page, text: str) -> None:
    await expect(page.locator("#rows")).to_contain_text(text)


async def test_eight_windows_of_one_browser_are_live_at_once_over_one_connection(browser: Browser, web: Front) -> None:
    context = await browser.new_context()
    pages = [await dashboard(context, web) for _ in range(8)]
    assert web.metric("bridge_subscribers") == 1
    await happens(web, "cvm-2")
    for page in pages:
        await shown(page, "cvm-1")
        await shown(page, "cvm-2")
    await context.close()
    await web.until_present(0)


async def test_a_token_is_asked_for_until_the_bridge_knows_it(browser: Browser, web: Front) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://{HOST}:{web.port}/")
    await page.fill("#token", "wrong")
    await page.click("#ask-form button")
    await expect(page.locator("#ask-fault")).to_have_text("The bridge does not know this token.")
    await page.fill("#token", "rootsecret")
    await page.click("#ask-form button")
    await expect(page.locator("#connection")).to_have_text("Live")
    await shown(page, "cvm-1")
    await context.close()


async def test_tabs_with_different_tokens_share_no_event(browser: Browser, web: Front) -> None:
    context = await browser.new_context()
    limited, free = await dashboard(context, web, "onesecret"), await dashboard(context, web)
    assert web.metric("bridge_subscribers") == 2
    await happens(web, "cvm-2")
    await happens(web, "cvm-1")
    last = f"#{web.written.sequence}"
    for page, count in ((free, 3), (limited, 2)):
        await expect(page.locator("#sequence")).to_have_text(last)
        await expect(page.locator("#feed li")).to_have_count(count)
    await expect(limited.locator("#rows tr")).to_have_count(1)
    await context.close()


@pytest.mark.parametrize("shared", [True, False], ids=["shared-worker", "no-shared-worker"])
async def test_a_hidden_tab_holds_no_connection_and_has_the_present_state_when_it_is_shown_again(
    browser: Browser, window: BrowserContext, web: Front, shared: bool
) -> None:
    page = await dashboard(window, web, scripts=[] if shared else ["delete globalThis.SharedWorker"])
    other = await window.new_page()
    await expect(page.locator("#connection")).to_have_text("Paused while hidden")
    await web.until_present(0)
    await happens(web, "cvm-2")
    await page.bring_to_front()
    await expect(page.locator("#connection")).to_have_text("Live")
    await shown(page, "cvm-2")
    await expect(page.locator("#feed li").first).to_contain_text(f"#{web.written.sequence}")
    await happens(web, "cvm-3")
    await shown(page, "cvm-3")
    await other.close()


async def test_a_tab_is_live_without_the_workers_script(browser: Browser, web: Front) -> None:
    context = await browser.new_context()
    await context.route("**/stream-worker.js", lambda route: route.abort())
    page = await dashboard(context, web)
    await happens(web, "cvm-2")
    await shown(page, "cvm-2")
    await context.close()


async def test_a_restart_of_the_server_loses_nothing(browser: Browser, redis_url: str) -> None:
    context = await browser.new_context()
    async with front(redis_url, tokens=TOKENS, open_access=False) as web:
        await web.lead()
        page = await dashboard(context, web)
        await happens(web, "cvm-1")
        await shown(page, "cvm-1")
        term, written = web.term, web.written
    await expect(page.locator("#connection")).to_have_text("Reconnecting")
    async with front(redis_url, tokens=TOKENS, open_access=False, port=web.port) as again:
        again.term, again.written = term, written
        await happens(again, "cvm-2")
        await expect(page.locator("#connection")).to_have_text("Live")
        await shown(page, "cvm-2")
        await expect(page.locator("#feed li")).to_have_count(2)
    await context.close()


async def test_the_feed_shows_what_the_log_has_where_an_hour_of_it_is_gone(browser: Browser, web: Front) -> None:
    context = await browser.new_context()
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        await (route.fulfill(status=410, json={"status": 410}) if len(asked) == 1 else route.continue_())

    await context.route("**/v1/events?limit=*", answer)
    page = await dashboard(context, web)
    await expect(page.locator("#feed li")).to_have_count(1)
    assert len(set(asked)) == 2
    await context.close()


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("max_subscribers", "The bridge takes no more streams: its limit is 1"),
        ("max_subscribers_per_token", "This token has too many streams: its limit here is 1"),
    ],
)
async def test_the_dashboard_says_why_it_is_not_live(browser: Browser, redis_url: str, limit: str, words: str) -> None:
    context = await browser.new_context()
    settings: dict[str, Any] = {limit: 1}
    async with front(redis_url, tokens=TOKENS, open_access=False, **settings) as web:
        await web.lead()
        await web.connect(f"/v1/events?access_token={await stream_token(web)}")
        await web.until_present(1)
        page = await opened(context, web)
        await expect(page.locator("#connection")).to_have_text(words)
        await context.close()


LISTENS = """token => {
  globalThis.heard = [];
  globalThis.source = new EventSource(`/v1/events?snapshot=0&access_token=${token}`);
  for (const name of ["overloaded", "position", "state"]) source.addEventListener(name, () => heard.push(name));
}"""


async def test_an_overloaded_front_end_is_told_in_band_and_the_event_source_comes_back_by_itself(
    browser: Browser, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in such a request tells that a browser sends it, but its `Accept`."""
    monkeypatch.setattr(events, "COME_BACK_MS", 300)
    context = await browser.new_context(bypass_csp=True)  # the test looks into the page with `eval`
    async with front(redis_url, tokens=TOKENS, open_access=False, max_subscribers=1) as web:
        await web.lead()
        token = await stream_token(web)
        _, only = await web.connect(f"/v1/events?snapshot=0&access_token={token}")
        await web.until_present(1)
        page = await context.new_page()
        await page.goto(f"http://{HOST}:{web.port}/docs")
        async with page.expect_request("**/v1/events?*") as request:
            await page.evaluate(LISTENS, token)
        sent = await (await request.value).all_headers()
        assert [name for name in sent if name == "origin" or name.startswith("sec-")] == []
        await page.wait_for_function("heard.filter(name => name === 'overloaded').length > 1")
        only.close()
        await page.wait_for_function("heard.at(-1) === 'position'")
        await web.append()
        await page.wait_for_function("heard.at(-1) === 'state' && source.readyState === EventSource.OPEN")
        await context.close()


async def test_a_strangers_site_reads_and_changes_nothing_of_an_open_bridge(browser: Browser, redis_url: str) -> None:
    context = await browser.new_context()
    form = '<form method="post" action="{}/v1/stream-tokens"><button>Win</button></form>'
    async with front(redis_url) as web:
        page = await context.new_page()
        rebound = await page.goto(f"http://{STRANGER}:{web.port}/v1/cvms")
        assert rebound is not None
        assert rebound.status == 421
        await page.route(
            f"http://{STRANGER}/", lambda route: route.fulfill(body=form.format(web.url), content_type="text/html")
        )
        await page.goto(f"http://{STRANGER}/")
        async with page.expect_response("**/v1/stream-tokens") as answer:
            await page.click("button")
        assert (await answer.value).status == 403
        await context.close()


async def test_a_token_that_may_only_read_sees_no_path_and_changes_nothing(browser: Browser, redis_url: str) -> None:
    context = await browser.new_context()
    key = new_key()
    tokens = Settings.model_validate({"tokens": "all:rootsecret:admin one:readsecret:read"}).tokens
    async with front(redis_url, tokens=tokens, open_access=False, secret_key=key) as web:
        url = Sealer([SecretStr(key)]).seal("https://chat.example.com/hook/secret")
        await Endpoints(web.backend).create(endpoint("wh_chat", url=url))
        page = await opened(context, web, "readsecret")
        await expect(page.locator("#notice")).to_contain_text("No leader follows the CVMs")
        await page.click("text=Webhooks")
        await page.click("#endpoints a")
        await expect(page.locator("#facts")).to_contain_text("https://chat.example.com/…")
        await page.click("#test")
        await expect(page.locator("#done")).to_contain_text("This token may only read.")
        await expect(page.locator("#no-deliveries")).to_be_visible()
        await context.close()
