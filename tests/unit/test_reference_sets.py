"""References to many CVMs: how they are written, and which CVMs belong to them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import reference_sets
from bridge.reference_sets import Kind, Reference, ReferenceIndex, ReferenceSet, parse

APP = "4d6a4bd2a5f1ec4a1a1ee43c2b3c4e5f60718293"


@pytest.mark.parametrize(
    ("text", "kind", "stored"),
    [
        ("*", Kind.EVERYTHING, "*"),
        (f"app_{APP}", Kind.APP, f"app_{APP}"),
        (f"app_{APP.upper()}", Kind.APP, f"app_{APP}"),
        ("name:web-*", Kind.NAME, "name:web-*"),
        ("name:a***b**", Kind.NAME, "name:a*b*"),
        ("name:Web-1", Kind.NAME, "name:Web-1"),
        ("web-1", Kind.CVM, "web-1"),
        (APP, Kind.CVM, APP),
        ("app_server", Kind.CVM, "app_server"),
        ("app_", Kind.CVM, "app_"),
        ("Name:web-*", Kind.CVM, "Name:web-*"),
    ],
)
def test_a_reference_has_a_kind_and_one_stored_spelling(text: str, kind: Kind, stored: str) -> None:
    reference = parse(text)
    assert (reference.kind, reference.text) == (kind, stored)
    assert reference.is_set == (kind is not Kind.CVM)
    assert parse(stored) == reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1 to 256 printable"),
        ("name:" + 252 * "x", "1 to 256 printable"),
        ("name:a\n", "1 to 256 printable"),
        ("name:", "'name:' can match no CVM"),
        ("name:web-[12]", "no brackets"),
    ],
)
def test_a_reference_that_can_match_nothing_is_refused_with_words_for_an_error_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_an_app_is_found_whether_or_not_upstream_writes_its_prefix() -> None:
    for written, asked in product((APP, APP.upper(), f"app_{APP}"), (f"app_{APP}", f"app_{APP.upper()}")):
        assert parse(asked).matches("c", written, None)
    assert not parse(f"app_{APP}").matches(APP, None, APP)


def test_what_is_not_known_of_a_cvm_matches_neither_apps_nor_patterns() -> None:
    assert not parse("name:*").matches("c", None, None)
    assert parse("*").matches("c", None, None)


def test_many_stars_and_a_long_name_take_no_longer_than_others() -> None:
    assert not parse("name:" + 80 * "*a" + "b").matches("c", None, 100_000 * "a")


LETTERS = "ab*?!"
NAMES = st.none() | st.text(LETTERS + "\n-A", max_size=6)
PATTERNS = st.text(LETTERS, min_size=1, max_size=6)
APPS = st.sampled_from([None, "ab", "AB", "app_ab", "cd", "app_CD"])
IDS = st.sampled_from(["1", "2", "3"])
TEXTS = st.just("*") | IDS | st.sampled_from(["app_ab", "app_Cd"]) | PATTERNS.map("name:{}".format)
MEMBERS = st.tuples(IDS, APPS, NAMES)


@given(PATTERNS, st.text(LETTERS + "\n-A", max_size=8))
def test_a_pattern_matches_what_a_shell_matches(pattern: str, name: str) -> None:
    expected = fnmatchcase(name, pattern)  # without brackets a shell knows only these two
    assert parse(f"name:{pattern}").matches("c", None, name) == expected == _by_hand(pattern, name)


def _by_hand(pattern: str, name: str) -> bool:
    if not pattern or not name:
        return set(pattern) <= {"*"} and not name
    if pattern[0] == "*":
        return any(_by_hand(pattern[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return pattern[0] in ("?", name[0]) and _by_hand(pattern[1:], name[1:])


@given(st.lists(TEXTS, max_size=6), MEMBERS)
def test_a_set_matches_what_one_of_its_references_matches(
    texts: list[str], member: tuple[str, str | None, str | None]
) -> None:
    references = [parse(text) for text in texts]
    made = ReferenceSet.of(references)
    assert made.matches(*member) == any(each.matches(*member) for each in references)
    assert {made} == {ReferenceSet.of(reversed(references))}


@given(st.lists(st.tuples(st.booleans(), TEXTS), max_size=12), st.lists(MEMBERS, min_size=1, max_size=4))
def test_an_index_finds_what_matches_while_references_come_and_go(
    changes: list[tuple[bool, str]], members: list[tuple[str, str | None, str | None]]
) -> None:
    index: ReferenceIndex[str] = ReferenceIndex()
    present: set[Reference] = set()
    for added, text in changes:
        reference = parse(text)
        if added:
            assert index.setdefault(reference, reference.text) == reference.text
            present.add(reference)
        else:
            index.discard(reference)
            present.discard(reference)
        for member in members:
            assert sorted(index.matching(*member)) == _matching(present, member)
    assert len(index) == len(present)
    assert all((index.get(each) is not None) == (each in present) for each in map(parse, {text for _, text in changes}))


def _matching(present: Iterable[Reference], member: tuple[str, str | None, str | None]) -> list[str]:
    return sorted(each.text for each in present if each.matches(*member))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The patterns that are tried, in order."""
    found: list[str] = []
    matcher = reference_sets._matcher

    def counting(pattern: str) -> object:
        found.append(pattern)
        return matcher(pattern)

    monkeypatch.setattr(reference_sets, "_matcher", counting)
    return found


def test_an_index_tries_a_pattern_once_for_a_name_however_many_events_and_patterns_come(tried: list[str]) -> None:
    index: ReferenceIndex[str] = ReferenceIndex()
    for text in ("name:web-*", "name:db-*", *(f"id{number}" for number in range(10_000))):
        index.setdefault(parse(text), text)
    for _ in range(100):
        assert list(index.matching("id7", None, "web-1")) == ["id7", "name:web-*"]
    assert tried == ["web-*", "db-*"]
    index.setdefault(parse("name:*1"), "name:*1")
    index.discard(parse("name:web-*"))
    assert list(index.matching("id7", None, "web-1")) == ["id7", "name:*1"]
    index.setdefault(parse("name:web-*"), "again")
    assert list(index.matching("id7", None, "web-1")) == ["id7", "again", "name:*1"]
    assert tried == ["web-*", "db-*", "*1"]


def test_an_index_forgets_patterns_that_are_gone(tried: list[str]) -> None:
    index: ReferenceIndex[str] = ReferenceIndex()
    index.setdefault(parse("name:web-*"), "web")
    for number in range(1000):
        index.setdefault(parse(f"name:gone-{number}"), "gone")
        index.discard(parse(f"name:gone-{number}"))
    assert list(index.matching("c", None, "web-1")) == ["web"]
    assert len(tried) <= 2 + reference_sets.MOST_GONE


def test_an_index_remembers_a_bounded_number_of_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_sets, "MOST_MATCHES", 7)
    index: ReferenceIndex[str] = ReferenceIndex()
    for number, text in enumerate(("name:web*", "name:w*", "name:*b-?*")):
        index.setdefault(parse(text), text)
        for name in (f"web-{each}" for each in range(9)):
            assert len(list(index.matching("c", None, name))) == number + 1
            assert sum(len(found) for found, _ in index._remembered.values()) <= 7


def test_an_index_remembers_a_bounded_number_of_names_none_of_them_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_sets, "MOST_REMEMBERED", 10)
    index: ReferenceIndex[str] = ReferenceIndex()
    index.setdefault(parse("name:web*"), "web")
    for number in range(100):
        assert list(index.matching("c", None, f"web-{number}")) == ["web"]
        assert list(index.matching("c", None, f"web-{number}" + 1000 * "x")) == ["web"]
    assert len(index._remembered) <= 10
    assert max(map(len, index._remembered)) < 1000
