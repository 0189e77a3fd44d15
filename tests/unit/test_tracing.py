"""Trace contexts as W3C Trace Context defines them; what is malformed is ignored."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import tracing
from bridge.tracing import Trace

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"

hexadecimal = st.text("0123456789abcdef")


@given(st.integers(), st.sampled_from([0, 1, 2, 3]))
def test_a_trace_that_begins_here_is_read_as_it_was_sent(seed: int, flags: int) -> None:
    rng = random.Random(seed)
    begun = tracing.begin(rng)
    sent = Trace(begun.trace_id, begun.span_id, flags, "a=1,b@c=2")
    assert tracing.read(sent.traceparent, sent.state) == sent
    inner = sent.child(rng)
    assert (inner.trace_id, inner.flags, inner.state) == (sent.trace_id, sent.flags, sent.state)
    assert inner.span_id != sent.span_id


class Zeros(random.Random):
    def getrandbits(self, _: int, /) -> int:
        return 0


def test_no_id_is_all_zeros() -> None:
    begun = tracing.begin(Zeros())
    assert tracing.read(begun.traceparent) == begun


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (PARENT, 1),
        (f"00-{ID}-{SPAN}-00", 0),
        (f"00-{ID}-{SPAN}-ff", 3),  # what the version does not define is not passed on
        (f"01-{ID}-{SPAN}-01", 1),
        (f"cc-{ID}-{SPAN}-01-what-the-future-will-be-like", 1),
    ],
)
def test_later_versions_are_read_as_this_one(text: str, flags: int) -> None:
    assert tracing.read(text) == Trace(ID, SPAN, flags)
    assert Trace(ID, SPAN, flags).traceparent.startswith("00-")


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        "",
        "00",
        f"00-{ID}-{SPAN}",
        f"00-{ID}-{SPAN}-1",
        f"00-{ID}-{SPAN}-01-",
        f"00-{ID}-{SPAN}-01-more",
        f"cc-{ID}-{SPAN}-01.more",
        f"ff-{ID}-{SPAN}-01",
        f"0-{ID}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00_{ID}-{SPAN}-01",
        f" {PARENT}",
        f"{PARENT}\n",
        f"{PARENT},{PARENT}",
        f"00-{ID[:-1]}٣-{SPAN}-01",
        f"cc-{ID}-{SPAN}-01-{'x' * 1000}",
    ],
)
def test_a_malformed_traceparent_is_no_trace_whatever_the_tracestate(text: object) -> None:
    assert tracing.read(text, "a=1") is None


@given(st.text() | hexadecimal.map(lambda text: f"00-{text}"), st.text())
def test_any_text_is_either_a_trace_or_none(parent: str, state: str) -> None:
    found = tracing.read(parent, state)
    assert found is None or tracing.read(found.traceparent, found.state) == found


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        ("a=1 ,\t, b=2", "a=1,b=2"),
        ("0tenant@system=x y", "0tenant@system=x y"),
        ("a=" + "v" * 256, "a=" + "v" * 256),
        (",".join(f"k{number}=v" for number in range(32)), ",".join(f"k{number}=v" for number in range(32))),
        (",".join(f"k{number}=v" for number in range(33)), ""),
        (f"a={'v' * 256},b={'v' * 256}", ""),  # longer than everybody must pass on
        ("a=" + "v" * 257, ""),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a", ""),
        ("a=", ""),
        ("a==", ""),
        ("a=ü", ""),
        ("a=1\r\nx: y", ""),
        (None, ""),
        ({}, ""),
    ],
)
def test_a_malformed_tracestate_is_dropped_and_the_trace_goes_on(given: object, kept: str) -> None:
    assert tracing.read(PARENT, given) == Trace(ID, SPAN, 1, kept)
