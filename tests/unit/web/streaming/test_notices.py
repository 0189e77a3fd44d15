"""Notices about webhook endpoints reach only subscribers that name their types and may see every CVM."""

from __future__ import annotations

import pytest

from bridge.cvm_scope import EVERY_CVM, CvmScope
from bridge.events import NOTICES, SSE_EVENTS, TRANSITION, Draft, Event
from bridge.reference_sets import ReferenceSet
from bridge.web.http.event_filter import EVERY_EVENT, EventFilter
from bridge.web.streaming.frames import frame
from bridge.web.streaming.subscriber import Subscriber
from bridge.web.streaming.subscriber_index import SubscriberIndex
from tests.unit.web.streaming.test_hub import ListSink

NAMED = EventFilter(types=frozenset({TRANSITION, *NOTICES}))
ONE = CvmScope(ReferenceSet.parsed(["cvm-1"]))
MANY = CvmScope(limit=ReferenceSet.parsed(["app_1f", "name:*"]))
OTHERS = EventFilter(types=frozenset({TRANSITION}))


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_goes_to_whom_names_its_type_and_to_no_subscriber_of_a_cvm_of_that_name(kind: str) -> None:
    named, *others = [
        Subscriber(ListSink(), scope=scope, filter=wanted)
        for scope, wanted in (
            (EVERY_CVM, NAMED),
            (EVERY_CVM, EVERY_EVENT),
            (EVERY_CVM, OTHERS),
            (ONE, NAMED),
            (ONE, EVERY_EVENT),
            (MANY, NAMED),
        )
    ]
    index = SubscriberIndex()
    for each in (named, *others):
        index.add(each)
    notice = Event.from_log(
        "1-0", Draft(kind, "", "t", '{"name":"web-1","app_id":"1f"}', "cvm-1").envelope("/bridge/x", 1)
    )
    shown = frame(notice)
    assert named.wants(shown)
    assert not any(each.wants(shown) for each in others)
    assert [list(group.others) for group in index.of(shown)] == [[named]]
    assert f"event: {SSE_EVENTS[kind]}\n".encode() in shown.data
