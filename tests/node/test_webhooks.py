"""Webhooks verified by the published JavaScript packages: @phala/cloud and standardwebhooks."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from bridge.store.endpoints import FORMATS, Format
from bridge.webhooks.formats import render
from bridge.webhooks.signing import sign
from tests.node.runtime import run
from tests.unit.webhooks.deliveries import event

NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()


def verified(format: Format, *, secret: str = NEW, at: float | None = None) -> Any:
    rendered = render(format, event(name="Bücher"), ran=True)
    moment = int(time.time() if at is None else at)
    signed = sign("wh_1-1795536119319-0", moment, rendered.body, [NEW, OLD], phala=format == "phala")
    return run(
        "verify.mjs", {"secret": secret, "headers": {**rendered.headers, **signed}, "body": rendered.body.decode()}
    )


def test_phalas_sdk_parses_the_phala_format_and_refuses_other_secrets_and_old_ones() -> None:
    parsed = verified("phala")["phala"]["event"]
    assert (parsed["event"], parsed["id"], parsed["version"]) == ("cvm.started", "evt_1795536119319-0", "1")
    assert (parsed["data"]["status"], parsed["data"]["cvm_name"]) == ("running", "Bücher")
    assert "Invalid webhook signature" in verified("phala", secret=OLD)["phala"]["refused"]
    assert "expired" in verified("phala", at=time.time() - 360)["phala"]["refused"]


@pytest.mark.parametrize("format", [name for name, content_type in FORMATS.items() if content_type.endswith("json")])
def test_standardwebhooks_verifies_every_format_by_the_new_and_the_old_secret(format: Format) -> None:
    for secret in (NEW, OLD):
        assert "event" in verified(format, secret=secret)["standard"]
    assert "too old" in verified(format, at=time.time() - 360)["standard"]["refused"]
