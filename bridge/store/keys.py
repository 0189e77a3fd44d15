"""The names of everything that the bridge keeps in Redis (`docs/contract.md#redis`; the rest is private).

Keys, hash fields and JSON members keep the names that they have always had, so that data in Redis stays readable across
an upgrade: `wishes` holds lookups, `notes` the leader's status, `vouchers` batch digests; `birth` is a log id, `floor`
a low-water mark, and `created_birth` the log id that an endpoint was created in.
"""

from __future__ import annotations


class Keys:
    """Keys and channels of one namespace. The braces make one cluster hash slot of all of them."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.source = f"/bridge/{namespace}"
        prefix = f"{{{namespace}}}:"
        # Public: the contract names these.
        self.events = f"{prefix}events"
        self.log = f"{prefix}log"
        self.state = f"{prefix}state"
        # Private.
        self.meta = f"{prefix}meta"
        self.rebuilt_log = f"{prefix}log:rebuilt"  # while a blocked log is moved
        self.seen_groups = f"{prefix}log:groups"
        self.leader = f"{prefix}leader"
        self.slots = f"{prefix}slots"
        self.watches = f"{prefix}watches"
        self.watches_revision = f"{prefix}watches:revision"
        self.pins = f"{prefix}pins"
        self.config_pins = f"{prefix}pins:config"
        self.demand = f"{prefix}demand"
        self.lookups = f"{prefix}wishes"
        self.hints = f"{prefix}hints"
        self.leader_status = f"{prefix}notes"
        self.polling = f"{prefix}notes:polling"
        self.versions = f"{prefix}versions"
        self.batch_digests = f"{prefix}vouchers"
        self.confirmed = f"{prefix}confirmed"
        self.rounds = f"{prefix}rounds"
        self.notices = f"{prefix}notices"
        self.known_notices = f"{prefix}notices:known"
        self.webhooks = f"{prefix}webhooks"  # the names of everything else about webhooks begin with it
        self.webhook_endpoints = f"{self.webhooks}:endpoints"
        self.webhook_wake_channel = f"{self.webhooks}:wake"
        self.tick_channel = f"{prefix}tick"
        self.wake_channel = f"{prefix}wake"
        self.answer_channel = f"{prefix}answers"
        self._answer = f"{prefix}answer:"
        self._last_answer = f"{prefix}last_answer:"

    def events_of(self, cvm_id: str) -> str:
        """The channel of one CVM's events."""
        return f"{self.events}:{cvm_id}"

    def answer(self, reference: str) -> str:
        """Where the leader's answer about a reference is kept for a minute."""
        return f"{self._answer}{reference}"

    def last_answer(self, reference: str) -> str:
        """Where it is kept longer, for the time in which no new one can be had."""
        return f"{self._last_answer}{reference}"
