"""Notices about webhook endpoints reach only subscribers that name their types and may see every CVM."""

from __future__ import annotations

import pytest

from bridge.events import NOTICES, SSE_EVENTS, TRANSITION, Draft, Event
from bridge.web.http.event_filter import EVERY_EVENT, EventFilter
from bridge.web.streaming.frames import frame
from bridge.web.streaming.subscriber import Subscriber
from bridge.web.streaming.subscriber_index import SubscriberIndex
from tests.unit.web.streaming.test_hub import ListSink

NAMED = EventFilter(types=frozenset({TRANSITION, *NOTICES}))
OTHERS = EventFilter(types=frozenset({TRANSITION}))


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_goes_to_whom_names_its_type_and_to_no_subscriber_of_a_cvm_of_that_name(kind: str) -> None:
    named, *others = [
        Subscriber(ListSink(), cvms=cvms, filter=wanted)
        for cvms, wanted in (
            (None, NAMED),
            (None, EVERY_EVENT),
            (None, OTHERS),
            (frozenset({"cvm-1"}), NAMED),
            (frozenset({"cvm-1"}), EVERY_EVENT),
        )
    ]
    index = SubscriberIndex()
    for each in (named, *others):
        index.add(each)
    notice = Event.from_log("1-0", Draft(kind, "", "t", "{}", "cvm-1").envelope("/bridge/x", 1))
    shown = frame(notice)
    assert named.wants(shown)
    assert not any(each.wants(shown) for each in others)
    assert [list(group.others) for group in index.of(shown)] == [[named]]
    assert f"event: {SSE_EVENTS[kind]}\n".encode() in shown.data
