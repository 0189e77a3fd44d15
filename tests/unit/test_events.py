"""States as upstream wrote them, and the envelope around them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import (
    MAX_DEPTH,
    MAX_STATE_BYTES,
    NOTICES,
    TRANSITION,
    Draft,
    Event,
    UnparsableStateError,
    cvm_data,
    dumps,
    entry_key,
    parse_state,
    usable_id,
    watch_data,
)
from bridge.tracing import Trace
from bridge.webhooks.formats import render

NASTY = 'a"}\\ \x00\x1f\x7f\x85\u2028\u2029\ud800\U0001f600{"id":"9-9"}"sequence":"7"'


def same(text: str, other: str) -> bool:
    return parse_state(text).same_as(parse_state(other))


@pytest.mark.parametrize(
    "text",
    [
        '{"status":"running","load":1.10,"big":1e5,"E":1E+05,"zero":-0}',
        '{"status":"r","n":"\\u0000\\u2028\\u0085\\/ \\ud83d\\ude00","lone":"\\ud800"}',
        '{ "b" : 1 , "a" : [ ] , "status" : "running" }',
        '{"status":"r","status":"s","dup":1,"dup":2}',
        '{"status":"","n":"ü 日本 😀"}',
        '{"status":"r","n":' + "9" * 5000 + ',"m":-' + "9" * 5000 + ',"f":1e999}',
    ],
)
def test_a_state_is_kept_character_for_character(text: str) -> None:
    assert parse_state(text).raw == text


def test_a_pretty_printed_state_becomes_one_line_with_the_same_meaning() -> None:
    meaning = {"status": "running", "events": [{"a": 1}, {"b": "x\r\ny\u2028"}]}
    for pretty in (json.dumps(meaning, indent=2), json.dumps(meaning, indent="\t").replace("\n", "\r\n")):
        state = parse_state(f"\ufeff\r\n{pretty}\n")
        assert state.raw.splitlines() == [state.raw]
        assert json.loads(state.raw) == meaning == state.fields


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_separators_that_line_readers_break_at_are_escaped(separator: str) -> None:
    state = parse_state('{"status":"r","n":"a' + separator + 'b"}')
    assert state.raw.splitlines() == [state.raw]
    assert json.loads(state.raw)["n"] == state.fields["n"] == f"a{separator}b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "[]",
        '"running"',
        "{}",
        '{"status":null}',
        '{"status":1}',
        '{"status":["running"]}',
        '{"Status":"running"}',
        '{"status":"r","n":NaN}',
        '{"status":"r","n":Infinity}',
        '{"status":"r","n":-Infinity}',
        '{"status":"r","n":01}',
        '{"status":"r",}',
        '{"status":"r"} {"status":"s"}',
        '{"status":"r","n":"\x00"}',
        '{"status":"r","n":"a\nb"}',
        '{"status":"r"}\u2028',
        "{'status':'r'}",
        "<html>502</html>",
        '{"status":"r","n":' + "[" * 100_000,
        '{"status":"r","n":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"status":"' + "x" * MAX_STATE_BYTES + '"}',
    ],
)
def test_text_that_is_not_a_state_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(UnparsableStateError) as refused:
        parse_state(text)
    assert len(str(refused.value)) < 80
    assert "502" not in str(refused.value)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """A state whose whole nesting is `levels` deep."""
    return '{"status":"r","n":' + opening * (levels - 1) + "1" + closing * (levels - 1) + "}"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_state_nests_as_deep_as_its_readers_can_follow_and_no_deeper(opening: str, closing: str) -> None:
    text = nested(MAX_DEPTH, opening, closing)
    state = parse_state(text)
    assert state.same_as(parse_state(text))
    data = cvm_data("c", None, (None, "r"), "poll", state.raw)
    Event.from_log("1-0", Draft("cvm.state", "c", "t", data).envelope("/bridge/b", 1))
    with pytest.raises(UnparsableStateError):
        parse_state(nested(MAX_DEPTH + 1, opening, closing))


def test_brackets_in_a_string_do_not_count_as_nesting() -> None:
    parse_state('{"status":"r","n":"' + "[{" * 1000 + '"}')


@pytest.mark.parametrize(
    ("text", "other", "equal"),
    [
        ('{"status":"r","uptime":"1 h"}', '{"status":"r","uptime":"2 h"}', True),
        ('{"status":"r","uptime":1}', '{"status":"r"}', True),
        ('{"status":"r","a":1,"b":2}', '{"b":2,  "a":1,"status":"r"}', True),
        ('{"status":"r"}', '{"status":"s"}', False),
        ('{"status":"r"}', '{"status":"r","new":null}', False),
        ('{"status":"r","a":{"uptime":1}}', '{"status":"r","a":{"uptime":2}}', False),
        ('{"status":"r","a":[1,2]}', '{"status":"r","a":[2,1]}', False),
        ('{"status":"r","a":' + "9" * 5000 + "}", '{"status":"r","a":' + "9" * 4999 + "8}", False),
        ('{"status":"r","a":9007199254740993}', '{"status":"r","a":9007199254740992}', False),
    ],
)
def test_uptime_alone_is_no_change(text: str, other: str, equal: bool) -> None:
    assert same(text, other) is equal


@pytest.mark.parametrize("change", [("0", "false"), ("1", "true"), ("[1]", "[true]"), ("0", "null"), ('"1"', "1")])
def test_another_kind_of_value_is_a_change(change: tuple[str, str]) -> None:
    before, after = (f'{{"status":"r","a":{value}}}' for value in change)
    assert not same(before, after)


@pytest.mark.parametrize("bad", ["", "a\nb", "a\u2028b", "\ud800", "x" * 257, None, 5, [], "\x7f"])
def test_an_id_that_cannot_be_a_key_is_ignored(bad: object) -> None:
    assert usable_id(bad) is None
    assert parse_state(json.dumps({"status": "r", "id": bad})).cvm_id is None


def test_name_and_id_are_read_if_they_are_strings() -> None:
    state = parse_state('{"status":"r","id":"c 1","name":"web"}')
    assert (state.status, state.cvm_id, state.name) == ("r", "c 1", "web")
    assert parse_state('{"status":"r","name":5}').name is None


def envelope(draft: Draft, sequence: int = 42) -> dict[str, Any]:
    text = Event.from_log("1795536119319-0", draft.envelope("/bridge/bridge", sequence)).json
    assert text.splitlines() == [text]
    assert text.isascii()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


DRAFTS = [
    Draft(
        "cvm.transition",
        "0e4b0c9e",
        "2026-11-24T16:01:59.319Z",
        cvm_data("0e4b0c9e", "web-1", ("starting", "running"), "stream", '{"status":"running","x":1.10}'),
    ),
    Draft("cvm.transition", "c", "2026-11-24T16:01:59.000Z", cvm_data("c", None, ("r", "deleted"), "poll", None)),
    Draft("watch.stale", "c", "2026-11-24T16:01:59.000Z", watch_data("c", None, "unreachable")),
    Draft("watch.dropped", "c", "2026-11-24T16:01:59.000Z", watch_data("c", "n")),
]


@pytest.mark.parametrize("draft", DRAFTS, ids=lambda draft: draft.type)
def test_the_published_sdk_accepts_the_envelope(draft: Draft) -> None:
    text = Event.from_log("1795536119319-0", draft.envelope("/bridge/bridge", 42)).json
    read = JSONFormat().read(None, text)
    assert (read.get_specversion(), read.get_id(), read.get_type()) == ("1.0", "1795536119319-0", draft.type)
    assert (read.get_source(), read.get_subject()) == ("/bridge/bridge", draft.cvm_id)
    assert read.get_extension("sequence") == "0000000000000042"
    assert read.get_data() == json.loads(draft.data)


def test_a_trace_stands_between_sequence_and_data_and_is_read_back() -> None:
    trace = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", state='a=","data":{"x":"y"}')
    plain, traced = (replace(DRAFTS[0], trace=each).envelope("/bridge/bridge", 42) for each in (None, trace))
    assert [*json.loads(traced)] == [*list(json.loads(plain))[:-1], "traceparent", "tracestate", "data"]
    event = Event.from_log("1795536119319-0", traced)
    assert (event.traceparent, event.tracestate) == (trace.traceparent, trace.state)
    assert Event.from_log("1795536119319-0", plain).trace is None
    read = JSONFormat().read(None, event.json)
    assert read.get_extension("traceparent") == trace.traceparent
    assert event.trace == replace(trace, state="")  # that is no tracestate
    assert json.loads(render("standard", event, ran=True).body)["data"] == json.loads(DRAFTS[0].data)


@pytest.mark.parametrize("given", ["malformed", 5, None, {}, ["00"]])
def test_an_event_with_a_malformed_trace_has_none(given: object) -> None:
    text = dumps({**envelope(DRAFTS[0]), "traceparent": given, "tracestate": given})
    assert Event.from_json(text).trace is None


def test_a_transition_has_the_contracts_fields() -> None:
    assert envelope(DRAFTS[0])["data"] == {
        "cvm_id": "0e4b0c9e",
        "name": "web-1",
        "app_id": None,
        "from": "starting",
        "to": "running",
        "observed_by": "stream",
        "ready": None,
        "operation": None,
        "state": {"status": "running", "x": 1.1},
    }
    gone = envelope(DRAFTS[1])["data"]
    assert (gone["to"], gone["state"], gone["name"]) == ("deleted", None, None)
    assert "reason" not in envelope(DRAFTS[3])["data"]


def test_a_notice_is_about_its_endpoint_and_about_no_cvm_of_that_name() -> None:
    for kind in NOTICES:
        draft = Draft(kind, "", "t", '{"endpoint_id":"cvm-1"}', "cvm-1")
        read = Event.from_log("1-0", draft.envelope("/bridge/x", 1))
        assert json.loads(read.json)["subject"] == "cvm-1"
        assert (read.cvm_id, read.endpoint_id, read.lane) == ("", "cvm-1", "endpoint:cvm-1")
    change = Event.from_log("1-0", Draft(TRANSITION, "cvm-1", "t", "{}").envelope("/bridge/x", 1))
    assert (change.cvm_id, change.endpoint_id, change.lane) == ("cvm-1", "", "cvm-1")


def test_hostile_names_stay_inside_their_fields() -> None:
    data = cvm_data(NASTY, NASTY, (NASTY, NASTY), "poll", None)
    found = envelope(Draft("cvm.state", NASTY, "2026-11-24T16:01:59.000Z", data))
    assert (found["id"], found["sequence"], found["subject"]) == ("1795536119319-0", "0000000000000042", NASTY)
    assert found["data"]["name"] == found["data"]["from"] == NASTY


@given(name=st.text(alphabet=st.characters(exclude_categories=[])), status=st.text())
def test_any_state_goes_through_the_envelope_unharmed(name: str, status: str) -> None:
    state = parse_state(json.dumps({"status": status, "name": name}, ensure_ascii=False))
    data = cvm_data("c", state.name, (None, state.status), "poll", state.raw)
    text = Draft("cvm.state", "c", "t", data).envelope("/bridge/bridge", 1)
    event = Event.from_log("5-0", text)
    assert event.json.splitlines() == [event.json]
    assert json.loads(event.json)["data"]["state"] == {"status": status, "name": name}
    assert Event.from_json(event.json) == event


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_sequences_order_as_text_as_they_do_as_numbers(one: int, other: int) -> None:
    first, second = (envelope(DRAFTS[0], number)["sequence"] for number in (one, other))
    assert (first < second, first == second) == (one < other, one == other)
    assert int(first) == one


@pytest.mark.parametrize("sequence", [1, 42, 10**14])
def test_an_entry_from_before_the_padding_is_read_as_if_written_today(sequence: int) -> None:
    data = cvm_data(NASTY, NASTY, (None, "r"), "poll", f'{{"status":"r","sequence":"{sequence}"}}')
    today = Draft("cvm.state", NASTY, "t", data).envelope('/bridge/"sequence":"1"', sequence)
    earlier = today.replace(f'"sequence":"{sequence:016d}"', f'"sequence":"{sequence}"')
    assert earlier != today
    event = Event.from_log("5-0", earlier)
    assert event == Event.from_log("5-0", today)
    assert (event.sequence, json.loads(event.json)["data"]["state"]["sequence"]) == (sequence, str(sequence))
    assert Event.from_json(f'{{"id":"5-0",{earlier[1:]}') == event


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "5",
        '"x"',
        "{}",
        '{"id":"1-0"}',
        '{"id":"1-0","sequence":"x","type":"t","subject":"s"}',
        '{"id":"1-0","sequence":null,"type":"t","subject":"s"}',
        '{"id":"1-0","sequence":Infinity,"type":"t","subject":"s"}',
        '{"id":"1-0","sequence":1e999,"type":"t","subject":"s"}',
        '{"id":"1-0","sequence":NaN,"type":"t","subject":"s"}',
        '{"id":"1-0","sequence":"' + "9" * 5000 + '","type":"t","subject":"s"}',
        "[" * 100_000,
    ],
)
def test_text_that_is_not_an_event_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words vary
        Event.from_json(text)
    with pytest.raises(ValueError):  # noqa: PT011
        Event.from_log("5-0", text)


def test_an_entry_that_claims_another_id_is_not_an_event() -> None:
    text = DRAFTS[0].envelope("/bridge/bridge", 1)
    with pytest.raises(ValueError, match="not an event"):
        Event.from_log("5-0", f'{{"id":"9-9",{text[1:]}')


def test_ids_compare_as_numbers() -> None:
    ids = ["9-0", "10-0", "10-2", "10-10", "1795536119319-0", f"1795536119319-{2**64 - 1}",
           "99999999999999999-0", f"{2**64 - 1}-0", f"{2**64 - 1}-{2**64 - 1}"]  # fmt: skip
    assert sorted(ids, key=entry_key) == ids
    assert entry_key("10") == entry_key("10-0") == (10, 0)


@pytest.mark.parametrize(
    "bad",
    ["", "-", "-1", "1-", "a-0", "1-a", "1-0-0", "+1-0", "1--1", " 1-0", "1-0 ", "١-0", "1-²", "9" * 21, "1_0-0",
     f"{2**64}-0", f"1-{2**64}", "1-0\n", "$", "*"],
)  # fmt: skip
def test_text_that_is_not_an_id_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not a log id"):
        entry_key(bad)
