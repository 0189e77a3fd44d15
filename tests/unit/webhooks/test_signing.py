"""Signatures, verified by the published packages: Standard Webhooks' own and Phala Cloud's SDK."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from phala_cloud import parse_webhook_event
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.webhook_formats import FORMATS, Format
from bridge.webhook_keys import new_private_text, private_key, public_bytes, public_text
from bridge.webhooks.formats import render
from bridge.webhooks.signing import key_of, sign, verify
from tests.unit.webhooks.deliveries import event

NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()

JSON_FORMATS = [name for name, content_type in FORMATS.items() if content_type.endswith("json")]
"""The published package refuses what is not JSON, once it has verified it."""


def signed(format: Format, secrets: list[str], at: float | None = None) -> tuple[str, dict[str, str]]:
    rendered = render(format, event(), ran=True)
    moment = int(time.time() if at is None else at)
    headers = sign("wh_1-1795536119319-0", moment, rendered.body, secrets, phala=format == "phala")
    return rendered.body.decode(), {**rendered.headers, **headers}


@pytest.mark.parametrize("format", JSON_FORMATS)
def test_standardwebhooks_verifies_every_format(format: Format) -> None:
    body, headers = signed(format, [NEW])
    assert Webhook(NEW).verify(body, headers) == json.loads(body)
    assert headers["webhook-id"] == "wh_1-1795536119319-0"
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body + " ", headers)


def test_after_a_rotation_the_new_and_the_old_secret_both_verify() -> None:
    body, headers = signed("standard", [NEW, OLD])
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)


def test_phalas_sdk_accepts_the_phala_format_signed_with_the_current_secret() -> None:
    body, headers = signed("phala", [NEW, OLD])
    read = parse_webhook_event(headers=headers, body=body, secret=NEW)
    assert (read.id, read.event, read.data["from"]) == (headers["x-webhook-id"], headers["x-webhook-event"], "starting")
    with pytest.raises(ValueError, match="Invalid webhook signature"):
        parse_webhook_event(headers=headers, body=body, secret=OLD)


def test_the_public_key_verifies_what_the_private_one_signs_beside_the_secret_or_alone() -> None:
    texts = [new_private_text(), new_private_text()]
    keys = [private_key(each) for each in texts]
    at = int(time.time())
    for secrets in ([NEW], []):
        headers = sign("wh_1-1", at, b"{}", secrets, keys, phala=False)
        schemes, values = zip(*(each.split(",") for each in headers["webhook-signature"].split(" ")), strict=True)
        assert schemes == ("v1",) * len(secrets) + ("v1a", "v1a")
        for text, value in zip(texts, values[-2:], strict=True):
            published = base64.b64decode(public_text(public_bytes(text)).removeprefix("whpk_"))
            Ed25519PublicKey.from_public_bytes(published).verify(base64.b64decode(value), f"wh_1-1.{at}.{{}}".encode())
        if secrets:
            assert Webhook(NEW).verify("{}", headers) == {}


def test_only_the_phala_format_has_phalas_signature() -> None:
    assert "x-webhook-signature" in signed("phala", [NEW])[1]
    for format in ("standard", "cloudevents"):
        assert not [name for name in signed(format, [NEW])[1] if name.startswith("x-")]


def test_both_refuse_a_signature_of_six_minutes_ago() -> None:
    body, headers = signed("phala", [NEW], at=time.time() - 360)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(NEW).verify(body, headers)
    with pytest.raises(ValueError, match="expired"):
        parse_webhook_event(headers=headers, body=body, secret=NEW)


@given(st.binary(min_size=24, max_size=64), st.sampled_from(JSON_FORMATS))
def test_any_secret_of_24_to_64_bytes_verifies(key: bytes, format: Format) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    assert key_of(secret) == key
    body, headers = signed(format, [secret])
    assert Webhook(secret).verify(body, headers)


def test_the_headers_are_lower_case_and_one_line_each() -> None:
    for name, value in signed("phala", [NEW, OLD])[1].items():
        assert name == name.lower()
        assert value.isascii()
        assert value.isprintable()


def test_verify_accepts_what_the_published_package_signs_and_ours_in_every_format() -> None:
    now = int(time.time())
    published = Webhook(NEW).sign("msg_1", datetime.fromtimestamp(now, UTC), '{"a":"ü"}')
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": f"v1a,xx {published}"}
    assert verify(headers, '{"a":"ü"}'.encode(), NEW, now) is None
    for format in FORMATS:
        body, own = signed(format, [NEW, OLD], at=now)
        assert verify(own, body.encode(), NEW, now + 299) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-timestamp": ""}, "malformed"),
        ({"webhook-timestamp": "-5"}, "malformed"),
        ({"webhook-timestamp": "1795536000"}, "does not fit"),
        ({"webhook-id": "other"}, "webhook-signature does not fit"),
        ({"webhook-signature": ""}, "webhook-signature does not fit"),
        ({"webhook-signature": "v1,ü"}, "webhook-signature does not fit"),
        ({"x-webhook-signature": "sha256=00"}, "x-webhook-signature does not fit"),
    ],
)
def test_verify_returns_the_fault(change: dict[str, str], reason: str) -> None:
    now = 1_795_536_001
    body, headers = signed("phala", [NEW], at=now)
    assert reason in str(verify({**headers, **change}, body.encode(), NEW, now))
    assert "off" in str(verify(headers, body.encode(), NEW, now + 301))
    assert verify(headers, body.encode(), OTHER, now) == "webhook-signature does not fit"
