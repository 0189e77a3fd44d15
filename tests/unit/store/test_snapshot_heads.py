"""What filters compare of snapshots, read without their states."""

from __future__ import annotations

import json

from bridge.store.snapshots import Snapshot, SnapshotHead, Snapshots
from tests.fakes import fake_backend

TRICKY = r'{"status":"running","app_id":"of the state","note":",\"app_id\":\"of a text\""}'


async def test_the_own_fields_are_found_behind_any_state_and_in_snapshots_of_earlier_versions() -> None:
    backend = fake_backend()
    whole = Snapshot("a", TRICKY, "running", "web-1", "t", "t", "1-0", app_id="1f", ready=True)
    named = Snapshot("b", TRICKY, "stopped", 5000 * "x", "t", "t", "1-0", app_id="1f")
    gone = Snapshot("c", None, "deleted", "web-3", "t", "t", "1-0", ready=False)
    unseen = Snapshot("d", None, None, None, None, None, fresh=False)
    old = {"status": "running", "name": "web-5", "since": "t", "observed_at": "t", "fresh": True, "event_id": "1-0"}
    texts = {each.cvm_id: each.to_json() for each in (whole, named, gone, unseen)}
    texts["e"] = f'{{"state":{{"nested":{TRICKY}}},{json.dumps(old, separators=(",", ":"))[1:]}'
    texts["f"] = f'{{"state":{{"app_id":"1f","event_id":"1-0"}},{json.dumps(old, separators=(",", ":"))[1:]}'
    texts["g"] = "not written by a bridge"
    await backend.client.hset(backend.keys.state, mapping=texts)
    heads = await Snapshots(backend).heads([*texts, "nobody"])
    assert heads == {
        "a": SnapshotHead("a", "1f", "web-1", "running", ready=True),
        "b": SnapshotHead("b", "1f", 5000 * "x", "stopped", ready=None),
        "c": SnapshotHead("c", None, "web-3", "deleted", ready=False),
        "e": SnapshotHead("e", None, "web-5", "running", ready=None),
        "f": SnapshotHead("f", None, "web-5", "running", ready=None),
    }
    await backend.close()
