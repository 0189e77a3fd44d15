from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.upstream.absence import Absence, Listing, Witnesses, plain
from bridge.upstream.errors import ForeignNotFoundError, NotFoundError, error_for

INTERVAL = 10.0


def absence(*answers: tuple[float, bool]) -> Absence:
    """After 404s at these times, in Phala's own words or not."""
    made = Absence()
    for at, own in answers:
        made.not_found(at, at, INTERVAL, own=own)
    return made


def listing(*names: str, at: float) -> Listing:
    return Listing(frozenset(map(plain, names)), at)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error_code":"ERR-03-001","message":"CVM not found"}', NotFoundError),
        (b'{"detail":"CVM not found"}', NotFoundError),
        (b'{"detail":{"error_code":"ERR-03-004"}}', NotFoundError),
        (b'{"detail":"Not Found"}', ForeignNotFoundError),
        (b'{"detail":null,"error_code":"404"}', ForeignNotFoundError),
        (b"404 page not found\n", ForeignNotFoundError),
        (b"<html>ERR-03-001</html>", ForeignNotFoundError),
        (b"[]", ForeignNotFoundError),
        (b"\xff", ForeignNotFoundError),
        (b"[" * 100_000, ForeignNotFoundError),
        (b"", ForeignNotFoundError),
    ],
)
def test_only_phalas_own_words_are_an_answer_about_the_cvm(body: bytes, kind: type[NotFoundError]) -> None:
    error = error_for(404, body, "", None)
    assert (type(error), error.is_definite) == (kind, kind is NotFoundError)


def test_the_same_answer_an_interval_later_proves_it_once_another_cvm_answered_in_between() -> None:
    twice = absence((100, True), (110, True))
    assert Witnesses(answered_at=105.0).prove("a", twice, alone=False)
    assert not Witnesses(answered_at=99.0).prove("a", twice, alone=False)
    assert not Witnesses(answered_at=105.0).prove("a", absence((100, True), (109, True)), alone=False)


def test_absence_from_a_list_proves_it_if_the_list_is_newer() -> None:
    once = absence((100, True))
    assert Witnesses(answered_at=101.0, listing=listing("b", at=101)).prove("a", once, alone=False)
    assert not Witnesses(answered_at=101.0, listing=listing("b", at=99)).prove("a", once, alone=False)
    assert not Witnesses(answered_at=101.0, listing=listing("A-", at=101)).prove("a", once, alone=False)


def test_the_only_cvm_needs_the_answer_twice_and_a_list_that_answers() -> None:
    listed = Witnesses(listing=listing(at=101))
    assert not listed.prove("a", absence((100, True)), alone=True)
    assert listed.prove("a", absence((100, True), (110, True)), alone=True)
    assert not Witnesses().prove("a", absence((100, True), (110, True)), alone=True)


def test_all_of_several_at_once_need_a_list_and_that_one_of_them_ever_answered() -> None:
    twice = absence((100, True), (110, True))
    assert Witnesses(answered_at=90.0, listing=listing(at=101)).prove("a", twice, alone=False)
    assert not Witnesses(listing=listing(at=101)).prove("a", twice, alone=False)


def test_a_foreign_404_proves_nothing_and_a_state_ends_the_suspicion() -> None:
    witnesses = Witnesses(answered_at=105.0, listing=listing(at=105))
    assert not witnesses.prove("a", absence((100, False), (110, False)), alone=True)
    assert not witnesses.prove("a", absence((100, False), (110, True)), alone=False)
    twice = absence((100, True), (110, True))
    twice.settle()
    assert not twice.is_missing
    assert not witnesses.prove("a", twice, alone=True)


@pytest.mark.parametrize(
    ("answered_at", "missing", "others", "at_fault"),
    [
        (50.0, [(100, False)] * 3, 9, True),
        (50.0, [(100, False)] * 2, 9, False),
        (50.0, [(100, False)] * 2, 0, True),
        (50.0, [(100, False)], 0, True),
        (100.0, [(100, False)] * 3, 0, False),
        (50.0, [(100, True)] * 3, 0, False),
        (50.0, [], 3, False),
        (50.0, [], 0, False),
    ],
)
def test_upstream_is_at_fault_where_several_or_all_are_not_found_and_none_answers(
    answered_at: float, missing: list[tuple[float, bool]], others: int, at_fault: bool
) -> None:
    absences = [absence(each) for each in missing] + [Absence() for _ in range(others)]
    assert Witnesses(answered_at=answered_at).accuse_upstream(absences) is at_fault


def test_phalas_words_accuse_upstream_once_they_came_again() -> None:
    assert Witnesses(answered_at=50.0).accuse_upstream([absence((100, True), (110, True)) for _ in range(2)])


STEPS = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(["own", "foreign", "state", "other", "listed", "unlisted"])),
    max_size=25,
)


@given(STEPS, st.booleans())
def test_no_run_of_answers_proves_a_deletion_without_phalas_words_and_a_witness(
    steps: list[tuple[int, str]], alone: bool
) -> None:
    """`prove` against the words of the contract, told from the whole history."""
    now, history, witnesses, weighed = 0.0, list[tuple[float, str]](), Witnesses(), Absence()
    for wait, what in steps:
        now += wait
        history.append((now, what))
        if what in ("own", "foreign"):
            weighed.not_found(now, now, INTERVAL, own=what == "own")
        elif what == "state":
            weighed.settle()
        elif what == "other":
            witnesses.answered(now)
        else:
            witnesses.listing = listing("a" if what == "listed" else "b", at=now)
        if witnesses.prove("a", weighed, alone=alone):
            _assert_proved(history, alone)


def _assert_proved(history: list[tuple[float, str]], alone: bool) -> None:
    begin = max((index + 1 for index, (_, what) in enumerate(history) if what == "state"), default=0)
    since = history[begin:]
    own = [at for at, what in since if what == "own"]
    later = {what for at, what in since if own and at >= own[0]}
    again = own and own[-1] >= own[0] + INTERVAL
    lists = [what for at, what in since if what in ("listed", "unlisted") and own and at >= own[0]]
    by_list = bool(lists) and lists[-1] == "unlisted"
    assert own
    assert by_list or (again and ("other" in later or (alone and lists)))
