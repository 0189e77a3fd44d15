"""`bridge check`: what it tells of a bridge that runs."""

from __future__ import annotations

import json
import re

from bridge.commands.check import _show_bridge, _show_settings
from bridge.config import Settings, variables
from bridge.store.leader_status import MOST_UNMET
from tests.fakes import fake_backend


def test_each_setting_is_a_line_of_three_columns() -> None:
    shown: list[str] = []
    _show_settings(Settings(), shown.append)
    columns = [re.split(r"  +", line.strip()) for line in shown[1:]]
    assert [name for name, _, _ in columns] == list(variables().values())


async def test_references_that_name_no_cvm_are_told_with_the_reason() -> None:
    backend, shown = fake_backend(), list[str]()
    unmet = {f"name:job-{number}*": "no CVM matches it yet" for number in range(MOST_UNMET + 2)}
    await backend.client.set(backend.keys.leader_status, json.dumps({"leader": "a", "unmet": unmet}))
    await _show_bridge(backend, Settings(), shown.append)
    notes = [line for line in shown if "BRIDGE_CVMS" in line]
    assert notes[0] == "  note     BRIDGE_CVMS: name:job-0*: no CVM matches it yet"
    assert len(notes) == MOST_UNMET + 1
    assert notes[-1] == "  note     BRIDGE_CVMS: and 2 more"
    await backend.close()
