"""Phala Cloud's own webhooks: which change is which event, and signatures that receivers accept."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from bridge.simulator.webhooks import event_of, headers, webhook
from bridge.simulator.world import World


def story(*statuses: str) -> list[str | None]:
    """The events of a CVM that goes through these statuses."""
    world = World(cvms=0, frozen=True)
    cvm = world.create(status=statuses[0])
    return [event_of(world.update(cvm, {"status": status})) for status in statuses[1:]]


@pytest.mark.parametrize(
    ("statuses", "events"),
    [
        (("provisioning", "starting", "running"), [None, "cvm.created"]),
        (("provisioning", "starting", "error"), [None, "cvm.create_failed"]),
        (("running", "stopping", "stopped", "starting", "running"), [None, "cvm.stopped", None, "cvm.started"]),
        (("running", "restarting", "starting", "running"), [None, None, "cvm.restarted"]),
        (("running", "restarting", "running"), [None, "cvm.restarted"]),
        (("running", "exited", "starting", "running"), ["cvm.stopped", None, "cvm.started"]),
        (("running", "error"), [None]),
        (("running", "running"), [None]),
        (("running", "deleted"), ["cvm.deleted"]),
    ],
)
def test_each_change_gives_upstreams_event(statuses: tuple[str, ...], events: list[str | None]) -> None:
    assert story(*statuses) == events


def test_a_deletion_is_one_event() -> None:
    world = World(cvms=2, frozen=True)
    shown, vanished = world.cvms
    world.update(shown, {"status": "deleted"})

    assert [event_of(world.delete(cvm)) for cvm in (shown, vanished)] == [None, "cvm.deleted"]


def test_envelope_and_signature_are_those_of_upstream() -> None:
    world = World(cvms=1, frozen=True)
    cvm = world.cvms[0]
    what = webhook(cvm, "cvm.stopped", "evt_1", world.now, error="why")
    sent = headers(what, "whsec_c2VjcmV0", "1795536000")
    digest = hmac.new(b"whsec_c2VjcmV0", b"1795536000." + what.body, hashlib.sha256).hexdigest()

    assert sent["X-Webhook-Signature"] == f"sha256={digest}"
    assert (sent["X-Webhook-Id"], sent["X-Webhook-Event"]) == ("evt_1", "cvm.stopped")
    envelope = json.loads(what.body)
    assert set(envelope) == {"id", "event", "version", "created_at", "workspace", "data"}
    assert envelope["data"] == {
        "cvm_id": cvm.cvm_id,
        "cvm_name": cvm.name,
        "app_id": cvm.app_id,
        "status": "running",
        "error": "why",
    }
