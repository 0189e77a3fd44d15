"""Messages for chat services, within the limits that these publish; `golden/` has one of each."""

from __future__ import annotations

import json
import re
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import NOTICES, STALE, Draft, Event, watch_data
from bridge.store.endpoints import Endpoints
from bridge.webhook_formats import Format
from bridge.webhooks.formats import Rendered, render
from tests.lanes import FakePoster, endpoint
from tests.unit.webhooks.deliveries import CVM, DELETED, FIRST_SIGHT, TEST, TIME, event, notice
from tests.unit.webhooks.stage import staged
from tests.virtual import run_virtual

CHAT: tuple[Format, ...] = ("slack", "discord", "teams", "ntfy")
GOLDEN = Path(__file__).parent / "golden"
FAILED = event(("starting", "error"), raw='{"status":"error","boot_error":"no disk"}', name="Bücher & <web>")


def stale() -> Event:
    draft = Draft(STALE, CVM, TIME, watch_data(CVM, "web-1", "unreachable"))
    return Event.from_log("1-0", draft.envelope("/b/x", 1))


def texts(format: Format, given: Event) -> tuple[str, str]:
    """Title and detail as the service's own fields have them."""
    rendered = render(format, given, ran=True)
    if format == "ntfy":
        return str(make_header(decode_header(rendered.headers["title"]))), rendered.body.decode()
    body = json.loads(rendered.body)
    if format == "teams":
        blocks = body["attachments"][0]["content"]["body"]
        return blocks[0]["inlines"][0]["text"], blocks[1]["inlines"][0]["text"]
    title, _, detail = body[{"slack": "text", "discord": "content"}[format]].partition("\n")
    return title, detail


@pytest.mark.parametrize("format", CHAT)
def test_the_message_is_the_golden_one(format: Format) -> None:
    rendered = render(format, FAILED, ran=True)
    golden = json.loads((GOLDEN / f"{format}.json").read_text("utf-8"))
    assert rendered.headers == golden["headers"]
    assert _read(rendered) == golden["body"]


def _read(rendered: Rendered) -> Any:
    is_json = rendered.headers["content-type"] == "application/json"
    return json.loads(rendered.body) if is_json else rendered.body.decode()


@pytest.mark.parametrize("format", CHAT)
def test_it_tells_name_change_since_and_reason(format: Format) -> None:
    title, detail = texts(format, event(name="web"))
    assert title.strip("*") == "web: starting → running"
    assert detail == f"since {TIME}"
    assert texts(format, stale())[0].strip("*").replace("\\", "") == f"web-1: {STALE}"
    assert texts(format, stale())[1] == f"since {TIME}, reason: unreachable"
    assert texts(format, FAILED)[1].endswith(", reason: no disk")
    assert texts(format, FIRST_SIGHT)[0].strip("*").endswith(": running")
    assert texts(format, DELETED)[0].strip("*").endswith(": running → deleted")
    assert "webhook.test" in texts(format, TEST)[0]
    assert CVM in texts(format, event(name=None))[0].replace("\\", "")


MENTIONS = ["<!channel>", "<!here|x>", "<@U123>", "<@&42>", "@everyone", "@here", "<#C1>", "<at>all</at>", "@\u0000all"]


@pytest.mark.parametrize("mention", MENTIONS)
@pytest.mark.parametrize("format", CHAT)
def test_a_name_status_or_reason_mentions_nobody(format: Format, mention: str) -> None:
    raw = json.dumps({"status": "error", "boot_error": mention})
    given = event((mention, mention), raw=raw, name=mention)
    rendered = render(format, given, ran=True)
    title, detail = texts(format, given)
    assert not re.search(r"@\w", title + detail)
    if format == "slack":
        assert not re.search("[<>]", title + detail)
        assert json.loads(rendered.body)["link_names"] is False
    if format == "discord":
        assert not re.search(r"(?<!\\)[<>]", title + detail)
        assert json.loads(rendered.body)["allowed_mentions"] == {"parse": []}
    if format == "teams":
        assert "entities" not in rendered.body.decode()


@pytest.mark.parametrize(
    "markup", ["[click](https://evil.example)", "**b**", "`c`", "||s||", "https://evil.example", "\\"]
)
def test_discord_shows_markup_as_text(markup: str) -> None:
    title, _ = texts("discord", event(name=markup))
    shown = re.sub(r"\\([^\w\s])", "", title.removeprefix("**").removesuffix("**"))
    assert not re.search(r"[*`|\[\]()\\]|://", shown)


def test_slack_escapes_three_characters_and_asks_for_no_markup() -> None:
    assert texts("slack", event(name="a&b<c>d"))[0].startswith("a&amp;b&lt;c&gt;d: ")
    assert json.loads(render("slack", event(), ran=True).body)["mrkdwn"] is False


def _within_limits(format: Format, rendered: Rendered) -> bool:
    if format == "ntfy":  # longer messages become attachments
        return len(rendered.body) <= 4096 and len(rendered.headers["title"]) <= 4096
    body = json.loads(rendered.body)
    if format == "teams":
        return len(rendered.body) <= 28 * 1024
    return len(body["text"]) <= 4000 if format == "slack" else len(body["content"].encode("utf-16-le")) // 2 <= 2000


TEXT = st.text(max_size=400) | st.sampled_from(["&" * 5000, "_" * 5000, "\U0001f600" * 5000, "\ud800", "\n\u2028"])


@given(st.sampled_from(CHAT), TEXT, TEXT, TEXT)
def test_any_text_makes_a_message_within_the_services_limits(
    format: Format, name: str, status: str, reason: str
) -> None:
    raw = json.dumps({"status": "error", "boot_error": reason})
    rendered = render(format, event((status, status), raw=raw, name=name), ran=True)
    assert _within_limits(format, rendered)
    assert all(value.isascii() and value.isprintable() for value in rendered.headers.values())


@pytest.mark.parametrize("boot_error", ["9" * 5000, "1e999", "[1.0, {}]", '"ü"', "false", "{}"])
@pytest.mark.parametrize("format", CHAT)
def test_a_reason_of_any_type_has_a_message(format: Format, boot_error: str) -> None:
    raw = f'{{"status":"error","many":{"9" * 5000},"boot_error":{boot_error}}}'
    assert texts(format, event(("starting", "error"), raw=raw))[1].startswith("since ")


def test_a_title_of_the_endpoints_own_headers_counts_instead() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            for name, headers in (("e", {"Title": "sealed:Mine"}), ("f", {"Priority": "sealed:high"})):
                await Endpoints(stage.backend).create(endpoint(name, format="ntfy", headers_sealed=headers))
            poster = FakePoster()
            stage.start(poster, render=render)
            await stage.writer.append("a")
            await stage.all_done("e", "f")
            titles = {
                got.url: [value for name, value in got.headers.items() if name.lower() == "title"] for got in poster.got
            }
            assert titles["http://e.test/"] == ["Mine"]
            assert [value.startswith("=?UTF-8?B?") for value in titles["http://f.test/"]] == [True]

    run_virtual(scenario())


@pytest.mark.parametrize("format", CHAT)
def test_a_notice_tells_in_two_lines_which_endpoint_what_became_of_it_and_what_waits(format: Format) -> None:
    golden = json.loads((GOLDEN / "notices.json").read_text("utf-8"))
    assert {kind: list(texts(format, notice(kind))) for kind in NOTICES} == golden[format]
    for kind in NOTICES:
        rendered = render(format, notice(kind), ran=False)
        assert b"secret" not in rendered.body
        assert _within_limits(format, render(format, notice(kind, "_" * 1000, reason="&" * 1000), ran=False))


def test_a_notice_of_an_endpoint_about_which_nothing_is_known_has_its_id() -> None:
    title, detail = texts("slack", notice(NOTICES[0], about="", since="", pending="0", given_up="0"))
    assert (title, detail) == ("webhook wh_1: failing", "since 2026-11-24T17:01:59.319Z")
