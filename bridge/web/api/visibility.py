"""Whether a token may see a CVM that is known by its id: its apps and patterns go by the CVM's last state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.cvm_scope import CvmIdentity
from bridge.reference_sets import APP_PREFIX
from bridge.store.reference_lookups import Answer
from bridge.store.snapshots import Snapshots
from bridge.web.http.access import Principal
from bridge.web.http.single_flight import SingleFlight


class Visibility:
    """Costs nothing for a token without apps and patterns, and one read of Redis for callers at the same moment."""

    def __init__(self, snapshots: Snapshots, single_flight: SingleFlight) -> None:
        self._snapshots = snapshots
        self._single_flight = single_flight

    async def require(
        self, principal: Principal, cvm_ids: Sequence[str], told: Mapping[str, CvmIdentity] | None = None
    ) -> None:
        """Raises as `Principal.refuse` if it may not see all of them; StoreError."""
        if not await self.may_see(principal, cvm_ids, told):
            principal.refuse()

    async def may_see(
        self, principal: Principal, cvm_ids: Sequence[str], told: Mapping[str, CvmIdentity] | None = None
    ) -> bool:
        """Whether it may see all of them. Raises StoreError.

        `told`: what is known of those that nobody has seen yet.
        """
        rest = tuple(each for each in dict.fromkeys(cvm_ids) if not principal.may_see(CvmIdentity(each)))
        if not rest:
            return True
        if principal.cvms is None or principal.cvms.is_fixed:
            return False
        known = await self._single_flight.ask(("heads", rest), lambda: self._snapshots.heads(rest))
        given = told or {}
        return all(principal.may_see(known.get(each) or given.get(each) or CvmIdentity(each)) for each in rest)


def told_by(answer: Answer) -> dict[str, CvmIdentity]:
    """What upstream's answer about a reference tells of the CVM: a name is its name, an app's id its app."""
    if answer.cvm_id is None:
        return {}
    name = answer.reference if answer.by_name else None
    # A CVM may be named like an app.
    app_id = answer.reference if name is None and answer.reference.startswith(APP_PREFIX) else None
    return {answer.cvm_id: CvmIdentity(answer.cvm_id, app_id, name)}
