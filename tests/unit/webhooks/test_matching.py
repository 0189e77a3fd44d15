"""Which endpoints want an event."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.events import DELIVERY_GIVEN_UP, ENDPOINT_FAILING, NOTICES, READINESS, STATE, TRANSITION, Event
from bridge.reference_sets import parse
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import EndpointSet
from bridge.store.lanes import Entry
from bridge.webhooks.matching import Matcher
from tests.lanes import endpoint, entry


def matcher(*endpoints: Endpoint) -> Matcher:
    stamped = [Endpoint.from_json(each.id, each.to_json(), None) for each in endpoints]
    return Matcher(EndpointSet(1, {each.id: each for each in stamped}))


def born(id: str, after: str = "5-0", log_id: str = "b", **given: Any) -> Endpoint:
    return endpoint(id, created_after=after, created_log_id=log_id, **given)


def test_an_endpoint_sees_only_what_is_newer_than_itself_in_the_log_it_was_made_in() -> None:
    known = matcher(born("e"))
    assert known.matching(entry("5-0"), "b") == []
    assert known.matching(entry("5-1"), "b") == ["e"]
    assert known.matching(entry("10-0"), "b") == ["e"]
    assert known.matching(entry("4-0"), "another") == ["e"]


def test_filters_are_all_to_be_met_and_empty_ones_always_are() -> None:
    known = matcher(
        born("all", types=()),
        born("plain"),
        born("cvm", cvms=("a", "c")),
        born("to", to=("running", "y")),
        born("from", from_=("nowhere",)),
        born("state", types=(STATE,)),
        born("several", types=(STATE, TRANSITION), cvms=("a", "b"), from_=("x",), to=("y",)),
    )
    assert known.matching(entry("9-0", "a"), "b") == ["all", "cvm", "plain", "several", "to"]
    assert known.matching(entry("9-0", "z", type=STATE), "b") == ["all", "state"]
    assert known.matching(entry("9-0", "b", from_=None, to=None, type="watch.stale"), "b") == ["all"]


def test_phala_clouds_own_webhooks_are_found_by_their_type_by_all_of_them_and_without_types() -> None:
    known = matcher(
        born("all", types=()),
        born("any", types=("phala.*",)),
        born("that", types=("phala.cvm.updated",), cvms=("a",)),
        born("another", types=("phala.cvm.stopped", "cvm.transition")),
        born("to", types=(), to=("running",)),
    )
    assert known.matching(entry("9-0", "a", from_=None, to=None, type="phala.cvm.updated"), "b") == [
        "all",
        "any",
        "that",
    ]


def test_a_filter_by_readiness_wants_events_that_tell_it() -> None:
    known = matcher(*(born(str(ready), types=(), ready=ready) for ready in (None, True, False)))
    for ready, wanting in ((None, ["None"]), (True, ["None", "True"]), (False, ["False", "None"])):
        shown = replace(entry("9-0", from_=None, to=None, type=READINESS), ready=ready)
        assert known.matching(shown, "b") == wanting


def test_an_endpoint_of_the_version_before_wants_what_it_wanted() -> None:
    fields = json.loads(born("e").to_json())
    del fields["ready"]
    assert Endpoint.from_json("e", json.dumps(fields), None) == born("e")


def test_disabled_endpoints_match_for_what_they_miss_is_listed() -> None:
    assert matcher(born("off", enabled=False)).matching(entry("9-0"), "b") == ["off"]


SOME = st.lists(st.sampled_from(["a", "b", "c"]), max_size=2).map(tuple)
CVMS = st.lists(st.sampled_from(["a", "b", "app_1", "name:x*", "*"]), max_size=2).map(tuple)
REACH = st.none() | CVMS


@given(
    st.lists(st.tuples(SOME, CVMS, SOME, SOME, REACH), max_size=8),
    st.tuples(*[st.sampled_from(["a", "b", "c", "d"])] * 4),
    st.sampled_from([(None, None), ("1", "xy"), ("app_1", "y"), (None, "x")]),
)
def test_the_index_finds_what_a_look_at_each_endpoint_finds(
    filters: list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]],
    shown: tuple[str, str, str, str],
    app_and_name: tuple[str | None, str | None],
) -> None:
    endpoints = [
        born(f"e{number}", types=types, cvms=cvms, from_=from_, to=to, reach=reach)
        for number, (types, cvms, from_, to, reach) in enumerate(filters)
    ]
    kind, cvm, from_, to = shown
    plain = entry("9-0", cvm, from_, to, type=kind)
    one = replace(plain, event=replace(plain.event, app_id=app_and_name[0], name=app_and_name[1]))
    expected = [each.id for each in endpoints if each.wants(one.event, from_, to)]
    for each in endpoints:
        sets = [texts for texts in (each.cvms or None, each.reach) if texts is not None]
        if not all(any(parse(text).matches(cvm, *app_and_name) for text in texts) for texts in sets):
            assert each.id not in expected
    assert matcher(*endpoints).matching(one, "b") == expected


def test_an_endpoint_gets_nothing_that_its_owner_may_not_see() -> None:
    known = matcher(
        born("all", reach=("a", "b")), born("some", cvms=("b", "c"), reach=("a", "b")), born("none", reach=())
    )
    found = [known.matching(entry("9-0", each), "b") for each in "abc"]
    assert found == [["all"], ["all", "some"], []]


def notice(type: str, about: str) -> Entry:
    return Entry(Event("9-0", 1, type, "", "{}", endpoint_id=about), False, None, None)


def test_a_notice_goes_to_those_that_name_its_type_but_never_to_the_endpoint_that_it_is_about() -> None:
    known = matcher(
        born("all", types=()),
        born("plain"),
        born("chat", types=NOTICES),
        born("some", types=(TRANSITION, DELIVERY_GIVEN_UP)),
        born("cvm", types=NOTICES, cvms=("dead",)),
        born("to", types=NOTICES, to=("running",)),
        born("ready", types=NOTICES, ready=True),
        born("limited", types=NOTICES, reach=("dead",)),
        born("dead", types=NOTICES),
    )
    assert known.matching(notice(ENDPOINT_FAILING, "dead"), "b") == ["chat"]
    assert known.matching(notice(DELIVERY_GIVEN_UP, "dead"), "b") == ["chat", "some"]
    assert known.matching(notice(DELIVERY_GIVEN_UP, "chat"), "b") == ["dead", "some"]
