"""What a receiver that quotes a request brings into the history: none of its secrets, in no likely spelling."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from bridge.webhooks.bodies import shown

PLAIN = "https://hooks.test/"
KEY = "sk_live_51/Hx+Z=&w"
BASIC = base64.b64encode(f"deploys:{KEY}".encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        KEY,
        f"Bearer {KEY}",
        f"bearer  {KEY}",
        f"Token token={KEY}",
        f'Custom user="me", key="{KEY}"',
        f"session={KEY}; path=/",
        f"Basic {BASIC}",
    ],
)
def test_credentials_are_hidden_with_and_without_their_scheme(value: str) -> None:
    lower = "sk_live_51%2fHx%2bZ%3d%26w"
    for text in (KEY, json.dumps(KEY), quote(KEY, safe=""), lower, quote(KEY), html.escape(KEY), value):
        told = shown(f"unknown API key {text}, sorry".encode(), PLAIN, {"Authorization": value})
        assert told.startswith("unknown API key ")
        assert "51" not in told, (text, told)
        assert "***" in told


def test_user_and_password_of_basic_are_hidden_in_both_forms() -> None:
    body = f"no user deploys with {KEY} in {BASIC}".encode()
    assert shown(body, PLAIN, {"authorization": f"Basic {BASIC}"}) == "no user *** with *** in ***"
    assert shown(b"no user deploys", PLAIN, {"authorization": "Basic %%%"}) == "no user deploys"


def test_a_json_answer_with_escaped_slashes_hides_them_too() -> None:
    body = json.dumps({"key": KEY}).replace("/", r"\/").encode()
    assert shown(body, PLAIN, {"X-Key": KEY}) == '{"key": "***"}'


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("/services/T01ABCDEF/B02ABCDEF/abcdefABCDEF0123456789xy", "abcdefABCDEF0123456789xy"),
        ("/api/webhooks/1234567890/a-b_C", "1234567890"),
        ("/deploys-of-us", "deploys-of-us"),
        ("/k%C3%B6nig-secret", "könig-secret"),
    ],
)
def test_a_path_that_is_a_secret_is_hidden_whole_and_in_parts(path: str, secret: str) -> None:
    url = f"https://hooks.test{path}?v=1"
    assert shown(f"cannot POST {path}".encode(), url, {}) == "cannot POST ***"
    assert shown(f"no hook {secret}".encode(), url, {}) == "no hook ***"


def test_words_of_a_path_and_short_texts_stay() -> None:
    url = "https://hooks.test/api/webhooks/x?y=1"
    assert shown(b"webhooks of the api: x, y=1", url, {"X-Env": "a b"}) == "webhooks of the api: x, y=1"
