"""What somebody gets of what they name, and what is watched for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.cvm_scope import CvmIdentity, CvmScope
from bridge.reference_sets import ReferenceSet

A, B = (f"0000000{each}-0000-4000-8000-000000000000" for each in "ab")
TEXTS = st.sampled_from([A, B, "*", "app_1f", "app_2", "name:web-*", "name:*-1", "name:web-1"])
SETS = st.none() | st.lists(TEXTS, max_size=3).map(ReferenceSet.parsed)
CVMS = st.builds(
    CvmIdentity,
    st.sampled_from([A, B]),
    st.sampled_from([None, "1F", "app_2"]),
    st.sampled_from([None, "web-1", "db-1"]),
)


def holds(references: ReferenceSet | None, cvm: CvmIdentity) -> bool:
    """By each reference alone."""
    return references is None or any(each.matches(cvm.cvm_id, cvm.app_id, cvm.name) for each in references)


@given(SETS, SETS, CVMS)
def test_a_scope_is_what_is_named_and_may_be_seen_and_all_of_it_is_watched_and_nothing_else_of_its_sets(
    named: ReferenceSet | None, limit: ReferenceSet | None, cvm: CvmIdentity
) -> None:
    scope = CvmScope(named, limit)
    wanted = holds(named, cvm) and holds(limit, cvm)
    assert scope.has(cvm) == wanted
    if scope.is_every:
        assert wanted
    if scope.cvm_ids is not None:
        assert (cvm.cvm_id in scope.cvm_ids) == wanted
    if scope.narrower is not None and wanted:
        assert holds(scope.narrower, cvm)
    if named is None:
        assert scope.demands == ReferenceSet()
        return
    watched = holds(scope.demands, cvm)
    if wanted:
        assert watched
    elif watched:  # its own list, or an id that it named and that was checked before
        assert holds(limit, cvm) or cvm.cvm_id in named.cvm_ids
