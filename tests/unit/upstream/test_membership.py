"""How many subscribers name a CVM by a set, as sets and CVMs change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.reference_sets import ReferenceIndex
from bridge.store.snapshots import Snapshot
from bridge.upstream.membership import Membership
from bridge.upstream.tracked import Tracked


def tracked(name: str, app_id: str = "0a") -> Tracked:
    snapshot = Snapshot("cvm", '{"status":"running"}', "running", name, "t", "t", app_id=app_id)
    return Tracked.loaded("cvm", snapshot, 0.0)


def test_the_subscribers_of_a_cvm_follow_sets_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    membership, cvm, asked = Membership([]), tracked("web-1"), []

    class Counted(ReferenceIndex[object]):
        def matching(self, cvm_id: str | None, app_id: str | None, name: str | None) -> Iterator[object]:
            asked.append(name)
            return super().matching(cvm_id, app_id, name)

    monkeypatch.setattr(membership, "_demanded", Counted())
    sets = {"name:web-*": 2, "app_0a": 3, "name:db-*": 4}
    for _ in range(3):
        membership.demand(sets)
        assert membership.subscribers(cvm) == 5
    assert asked == ["web-1"], "what has not changed is not matched again for each survey"
    for changed, subscribers in (
        ({"name:web-*": 1, "app_0a": 3, "name:db-*": 4}, 4),
        ({"name:web-*": 1, "app_0a": 3, "name:db-*": 4, "*": 7}, 11),
        ({"name:web-*": 1, "name:db-*": 4, "*": 7}, 8),
    ):
        membership.demand(changed)
        assert membership.subscribers(cvm) == subscribers
    assert membership.subscribers(tracked("db-1")) == 11
