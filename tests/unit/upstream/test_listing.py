"""The list as pure data: which pages it has, when it is whole, and whom a reference names."""

from __future__ import annotations

import pytest

from bridge.upstream.client import Listed, ListPage
from bridge.upstream.listing import MOST_PAGES, Directory, ListPass

UUID = "0e4b0c9e-5d0a-4a53-9d4e-6a1b6d3f7c21"


def page(*names: str, total: int | None = None, pages: int | None = None) -> ListPage:
    return ListPage(tuple(Listed(vm_uuid=name) for name in names), total, pages)


def made(*pages: ListPage) -> ListPass:
    listed = ListPass()
    for number, each in enumerate(pages, 1):
        listed.add(number, each)
    return listed


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (page("a", "b", pages=7, total=3), 7),
        (page("a", "b", total=5), 3),  # pages may be shorter than they were asked for
        (page("a", "b"), None),
        (page(total=5), None),
    ],
)
def test_the_last_page_is_known_by_either_count(first: ListPage, last: int | None) -> None:
    assert made(first).last == last


def test_a_page_that_names_nobody_new_is_the_end() -> None:
    assert made(page("a"), page("b")).end == MOST_PAGES
    assert made(page("a"), page("a")).end == 2
    assert made(page("a"), page("b"), page()).end == 3


def test_a_list_is_whole_where_it_names_as_many_as_it_counts() -> None:
    assert made(page("a", total=2), page("b", total=2)).unnamed == 0
    assert made(page("a", total=3), page("b", total=3)).unnamed == 1
    assert made(page("a"), page("b")).unnamed == 0
    assert made(page("a", pages=MOST_PAGES + 3)).unnamed == 3


def test_a_list_whose_count_changed_meanwhile_is_not_steady() -> None:
    assert made(page("a", total=2), page("b", total=2)).is_steady
    assert not made(page("a", total=2), page("b", total=3)).is_steady


def test_a_cvm_whose_status_changed_between_two_pages_is_one_cvm() -> None:
    listed = ListPass()
    listed.add(1, ListPage((Listed(vm_uuid="a", status="running"),), 2))
    listed.add(2, ListPage((Listed(vm_uuid="a", status="stopped"),), 2))
    assert listed.unnamed == 1


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        (UUID, UUID),
        (UUID.replace("-", ""), UUID),
        (UUID.upper(), UUID),
        ("cvm_1", UUID),
        ("web-1", UUID),
        ("web1", None),  # dashes are part of a name
        ("app_ab12", UUID),
        ("ab12", UUID),
        ("i-1", UUID),
        ("shared", None),  # it names two
        ("cvm_2", "cvm_2"),  # no uuid yet
        ("unknown", None),
    ],
)
def test_a_reference_is_found_as_the_state_route_finds_it(reference: str, key: str | None) -> None:
    one = Listed(vm_uuid=UUID, hashed_id="cvm_1", name="web-1", app_id="app_ab12", instance_id="i-1")
    entries = [one, Listed(hashed_id="cvm_2", name="shared"), Listed(vm_uuid="c", name="shared"), Listed(name="no id")]
    assert Directory.of(entries).find(reference) == key
