"""What a receiver gets, read by the published packages."""

from __future__ import annotations

import json

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat

from bridge.events import NOTICES, STALE, STATE, TRANSITION, Draft, Event, phala_data, watch_data
from bridge.webhook_formats import FORMATS, Format
from bridge.webhooks.formats import lifecycle, render
from tests.unit.webhooks.deliveries import CVM, DELETED, FIRST_SIGHT, RAW, TEST, TIME, event, notice

ENVELOPES: tuple[Format, ...] = ("standard", "cloudevents", "phala")
"""The formats whose body has the event's `data`; the others are messages (`test_chat_formats.py`)."""


def test_phala_clouds_own_webhook_is_sent_in_its_format_as_it_came() -> None:
    notice = '{"id":"evt_5f0c","event":"cvm.update.pending_approval","n":1.10,"data":{"cvm_id":"x"}}'
    draft = Draft("phala.cvm.update.pending_approval", CVM, TIME, phala_data(CVM, "web-1", None, notice))
    found = Event.from_log("1795536119319-0", draft.envelope("/bridge/bridge", 42))
    rendered = render("phala", found, ran=True)
    assert rendered.body.decode() == notice
    assert (rendered.headers["x-webhook-id"], rendered.headers["x-webhook-event"]) == (
        "evt_5f0c",
        "cvm.update.pending_approval",
    )
    assert json.loads(render("standard", found, ran=True).body)["data"]["notice"]["n"] == 1.10


def test_standard_is_type_timestamp_and_the_events_data_character_for_character() -> None:
    rendered = render("standard", event(), ran=True)
    body = json.loads(rendered.body)
    assert list(body) == ["type", "timestamp", "data"]
    assert (body["type"], body["timestamp"], body["data"]["to"]) == (TRANSITION, TIME, "running")
    assert RAW in rendered.body.decode()
    assert rendered.headers == {"content-type": "application/json"}


def test_cloudevents_is_the_envelope_that_the_published_sdk_reads() -> None:
    rendered = render("cloudevents", event(), ran=True)
    assert rendered.headers == {"content-type": "application/cloudevents+json"}
    message = HTTPMessage(headers=rendered.headers, body=rendered.body)
    read = from_structured_event(message, JSONFormat())
    assert (read.get_id(), read.get_type(), read.get_source()) == ("1795536119319-0", TRANSITION, "/bridge/bridge")
    assert (read.get_subject(), read.get_extension("sequence")) == (CVM, "0000000000000042")
    data = read.get_data()
    assert isinstance(data, dict)
    assert data["state"]["status"] == "running"


def test_phala_is_phalas_own_envelope_with_from_and_to_besides() -> None:
    rendered = render("phala", event(), ran=True)
    assert json.loads(rendered.body) == {
        "id": "evt_1795536119319-0",
        "event": "cvm.started",
        "version": "1",
        "created_at": TIME,
        "workspace": {"id": "bridge", "name": "bridge"},
        "data": {
            "cvm_id": CVM,
            "cvm_name": "web-1",
            "app_id": None,
            "status": "running",
            "from": "starting",
            "to": "running",
        },
    }
    assert rendered.headers == {
        "content-type": "application/json",
        "x-webhook-id": "evt_1795536119319-0",
        "x-webhook-event": "cvm.started",
    }


def test_phala_tells_the_app_and_the_error_where_the_state_does() -> None:
    raw = '{"status":"error","app_id":"ab12","boot_error":"no disk"}'
    failed = json.loads(render("phala", event(("starting", "error"), raw=raw), ran=False).body)
    assert failed["event"] == "cvm.create_failed"
    assert (failed["data"]["app_id"], failed["data"]["error"]) == ("ab12", "no disk")
    later = json.loads(render("phala", event(("running", "error"), raw=raw), ran=True).body)
    assert "error" not in later["data"]


@pytest.mark.parametrize(
    ("before", "after", "ran", "name"),
    [
        ("starting", "running", False, "cvm.created"),
        ("restarting", "running", False, "cvm.created"),
        ("starting", "running", True, "cvm.started"),
        ("stopped", "running", True, "cvm.started"),
        ("restarting", "running", True, "cvm.restarted"),
        ("running", "stopped", True, "cvm.stopped"),
        ("stopping", "exited", True, "cvm.stopped"),
        ("provisioning", "stopped", False, "cvm.stopped"),
        ("starting", "error", False, "cvm.create_failed"),
        ("starting", "error", True, "cvm.transition"),
        ("running", "deleted", True, "cvm.deleted"),
        ("error", "deleted", False, "cvm.deleted"),
        ("running", "stopping", True, "cvm.transition"),
        ("stopped", "starting", True, "cvm.transition"),
        ("running", "something new", True, "cvm.transition"),
    ],
)
def test_phalas_names_follow_from_the_change_and_whether_it_ever_ran(
    before: str, after: str, ran: bool, name: str
) -> None:
    assert lifecycle(TRANSITION, before, after, ran=ran) == name


def test_what_is_no_transition_keeps_its_own_type_for_phala() -> None:
    assert json.loads(render("phala", FIRST_SIGHT, ran=False).body)["event"] == STATE
    stale = Event.from_log("1-0", Draft(STALE, CVM, TIME, watch_data(CVM, "web-1", "unreachable")).envelope("/b/x", 1))
    assert json.loads(render("phala", stale, ran=True).body)["event"] == STALE


def test_every_format_has_a_body_for_every_event() -> None:
    for format in ENVELOPES:
        for each in (event(), FIRST_SIGHT, DELETED, TEST, event(name=None)):
            body = json.loads(render(format, each, ran=False).body)
            assert isinstance(body["data"], dict), (format, each.type)
    assert json.loads(render("standard", TEST, ran=False).body)["type"] == "webhook.test"
    assert json.loads(render("standard", DELETED, ran=True).body)["data"]["state"] is None


def test_names_that_look_like_the_envelope_change_nothing() -> None:
    tricky = '","data":{"cvm_id":"other"},"x":"'
    for format in ENVELOPES:
        body = json.loads(render(format, event(name=tricky, cvm_id=tricky), ran=True).body)
        assert body["data"]["cvm_id"] == tricky
    assert json.loads(render("standard", event(name=tricky), ran=True).body)["data"]["name"] == tricky


def test_any_name_makes_a_body_of_utf_8_on_one_line() -> None:
    for format in FORMATS:
        rendered = render(format, event(name="Bücher \u2028 \ud800\n", raw='{"status":"running","ü":"ß"}'), ran=True)
        assert len(rendered.body.decode().splitlines()) == 1
        assert all(value.isascii() and value.isprintable() for value in rendered.headers.values())


LONG = "9" * 5000
"""A legal JSON number that `int` refuses to read."""


@pytest.mark.parametrize("app_id", [LONG, "1.10", "1e999", "-0", '"ü\\u00fc"', "null", "[1.0, {}]"])
@pytest.mark.parametrize("format", ENVELOPES)
def test_a_state_of_any_numbers_has_a_body_and_stays_as_upstream_wrote_it(format: Format, app_id: str) -> None:
    raw = f'{{"status": "error", "many":{LONG}, "app_id" : {app_id} ,"boot_error":"no \\u2028 disk"}}'
    body = render(format, event(("starting", "error"), raw=raw), ran=False).body.decode()
    assert (f'"app_id":{app_id},' if format == "phala" else raw) in body
    assert json.loads(body, parse_int=str)["data"]["to"] == "error"


def test_a_member_that_upstream_wrote_twice_counts_as_parsers_take_it() -> None:
    raw = '{"app_id":"first","status":"error","app_id":"last","boot_error":{"a":[1.0]}}'
    data = json.loads(render("phala", event(("starting", "error"), raw=raw), ran=False).body)["data"]
    assert (data["app_id"], data["error"]) == ("last", {"a": [1.0]})


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_is_its_data_in_every_envelope(kind: str) -> None:
    given = notice(kind)
    data = json.loads(given.json)["data"]
    assert data["url"] == "https://chat.example/…"
    for format in ENVELOPES:
        body = json.loads(render(format, given, ran=False).body)
        assert body["data"] == data
        assert kind in (body.get("type"), body.get("event"))
