"""The settings of docs/contract.md#environment: allowed values, and the errors of wrong ones."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Allowlist, Settings, SettingsError, Token, load_settings, unknown_names, variables
from bridge.config_values import masked_url, shown
from tests.tables import names, rows

if TYPE_CHECKING:
    from pathlib import Path

CONTRACT = {
    name: (names(default) or [default])[0] if re.fullmatch(r"`[^`]*`|[0-9]+", default) else ""
    for cell, default, _ in rows("docs/contract.md", "variable", "default", "meaning")
    for name in names(cell)
}
"""Variables and their defaults; "" where there is none, or another one in each role."""


def complaint(env: pytest.MonkeyPatch, name: str, value: str) -> str:
    """The error for this value; it must be one line, about this variable."""
    env.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{name} must be ")
    return text


def test_without_any_variable_the_defaults_are_the_contracts(env: pytest.MonkeyPatch) -> None:
    assert [(name, value) for name, value, _ in load_settings().in_force()] == list(CONTRACT.items())


@pytest.mark.parametrize("name", CONTRACT)
def test_an_empty_variable_is_an_unset_one(env: pytest.MonkeyPatch, name: str) -> None:
    env.setenv(name, "")
    assert (name, CONTRACT[name], "default") in load_settings().in_force()


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("PORT", ["0", "65535"], ["-1", "65536", "http", "80.5"]),
        ("BRIDGE_PROBE_PORT", ["0", "9000"], ["-1", "70000"]),
        ("BRIDGE_MAX_STREAMS", ["0", "5"], ["-1", "6", "five"]),
        ("BRIDGE_STREAM_INTERVAL", ["5", "30"], ["4", "31", "5.5"]),
        ("BRIDGE_STREAM_TIMEOUT", ["10", "600"], ["9", "601"]),
        ("BRIDGE_POLL_INTERVAL", ["0.1", "60"], ["0.09", "nan", "inf", "-1"]),
        ("BRIDGE_LEASE_SECONDS", ["0.5", "30"], ["0", "never"]),
        ("BRIDGE_HEARTBEAT", ["1", "15.5"], ["0", "nan"]),
        ("BRIDGE_SUBSCRIBER_MAX_AGE", ["0", "3600"], ["-1", "1e300"]),
        ("BRIDGE_LOG_LENGTH", ["1", "1000000"], ["0", "many"]),
        ("BRIDGE_GROUP_IDLE", ["60", "604800.5"], ["59", "nan", "7d"]),
        ("BRIDGE_AUTH", ["on", "off", "true"], ["maybe", "2"]),
        ("BRIDGE_NAMESPACE", ["a", "my.bridge_1-x"], ["{bridge}", "a b", "x" * 65, "naïve"]),
        ("BRIDGE_LOG_LEVEL", ["DEBUG", "warning"], ["loud"]),
        ("BRIDGE_LOG_FORMAT", ["JSON", "console"], ["xml"]),
        (
            "HOST",
            ["127.0.0.1", "::1", "localhost", "unix:/run/a b.sock"],
            ["two words", "http://x", "unix:x/y", "unix:/"],
        ),
    ],
)
def test_the_bounds_of_a_variable(env: pytest.MonkeyPatch, name: str, good: list[str], bad: list[str]) -> None:
    for value in bad:
        assert repr(value)[:50] in complaint(env, name, value)
    for value in good:
        env.setenv(name, value)
        load_settings()


def test_all_wrong_variables_are_reported_at_once_in_one_line_each(env: pytest.MonkeyPatch) -> None:
    env.setenv("PORT", "x")
    env.setenv("BRIDGE_MAX_STREAMS", "9")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).splitlines() == [
        "PORT must be a whole number from 0 to 65535 (0: any free port); it is 'x'",
        "BRIDGE_MAX_STREAMS must be a whole number from 0 to 5; it is '9'",
    ]


def test_a_value_of_many_lines_still_gets_one_short_line(env: pytest.MonkeyPatch) -> None:
    assert len(complaint(env, "BRIDGE_NAMESPACE", "a\nb\r" * 1000)) < 200


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:pa%40ss@10.0.0.1:6379/3",
        "rediss://user:pw@redis.example.com:6380/0?ssl_cert_reqs=none",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://h1:26379,h2:26379/main",
        "redis+sentinel://:pw@h1:26379/main/0",
        "redis+cluster://h1:7000,h2:7001",
    ],
)
def test_the_five_forms_of_a_redis_url(env: pytest.MonkeyPatch, url: str) -> None:
    env.setenv("REDIS_URL", url)
    assert load_settings().redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://canary@localhost",
        "redis://",
        "redis://h1:1,h2:2/0",
        "redis://user:canary#x@h:6379:1/0",
        "redis://:canary@localhost:99999/0",
        "redis://:canary@localhost:6379/main",
        "redis+sentinel://:canary@h1:26379",
        "redis+cluster://h1:7000,,h2:canary",
        "unix://",
    ],
)
def test_a_wrong_redis_url_is_refused_without_showing_it(env: pytest.MonkeyPatch, url: str) -> None:
    assert "canary" not in complaint(env, "REDIS_URL", url)


def test_tokens_are_taken_apart(env: pytest.MonkeyPatch) -> None:
    env.setenv("BRIDGE_TOKENS", "ops:s3cret:admin  web:other:read:web-1,app_0a")
    ops, web = load_settings().tokens
    assert (ops.name, ops.secret.get_secret_value(), ops.scope, ops.cvms) == ("ops", "s3cret", "admin", frozenset())
    assert (web.name, web.scope, web.cvms) == ("web", "read", frozenset({"web-1", "app_0a"}))


@pytest.mark.parametrize(
    "text",
    [
        "canary",
        "name:canary",
        "name:canary:write",
        "name::read",
        ":canary:read",
        "name:canary:read:",
        "name:canary:read:a,,b",
        "name:canary:read:*",
        "name:canary:read:name:",
        "name:canary:read:name:canary[1]",
        "same:canary:read same:canary2:read",
        "one:canary:read two:canary:read",
        "name:cänary:read",
    ],
)
def test_wrong_tokens_are_refused_without_showing_them(env: pytest.MonkeyPatch, text: str) -> None:
    error = complaint(env, "BRIDGE_TOKENS", text)
    assert "canary" not in error
    assert "cänary" not in error


@pytest.mark.parametrize("name", ["PHALA_CLOUD_API_KEY", "PHALA_WEBHOOK_SECRET", "BRIDGE_SECRET_KEY"])
def test_a_wrong_secret_is_never_shown(env: pytest.MonkeyPatch, name: str) -> None:
    assert "canary" not in complaint(env, name, "canary with\nspaces")


def test_secrets_are_masked_in_in_force_and_in_the_repr(env: pytest.MonkeyPatch) -> None:
    key = Fernet.generate_key().decode()
    env.setenv("PHALA_CLOUD_API_KEY", "canary-key")
    env.setenv("PHALA_WEBHOOK_SECRET", "canary-hook")
    env.setenv("REDIS_URL", "redis://user:canary-pw@h:6379/0?password=canary-too")
    env.setenv("BRIDGE_TOKENS", "ops:canary-token:admin web:canary-2:read:b,a")
    env.setenv("BRIDGE_SECRET_KEY", f"{key},{key}")
    settings = load_settings()
    shown_values = {name: value for name, value, _ in settings.in_force()}
    assert shown_values["REDIS_URL"] == "redis://user:***@h:6379/0?password=***"
    assert shown_values["BRIDGE_TOKENS"] == "ops:***:admin web:***:read:a,b"
    for text in (repr(settings), str(settings.in_force())):
        assert "canary" not in text
        assert key not in text


def test_lists_drop_blanks_and_repeats_and_keep_their_order(env: pytest.MonkeyPatch) -> None:
    env.setenv("BRIDGE_CVMS", " web-2, web-1,,web-2 ,*")
    assert load_settings().cvms == ("web-2", "web-1", "*")


def test_sets_are_spelled_in_one_way(env: pytest.MonkeyPatch) -> None:
    env.setenv("BRIDGE_CVMS", "app_0A,name:web-**,app_0a,web-1")
    assert load_settings().cvms == ("app_0a", "name:web-*", "web-1")


@pytest.mark.parametrize(("wrong", "told"), [("a/../b", "'a/../b'"), ("name:", "'name:'"), ("name:[ab]", "brackets")])
def test_a_reference_that_can_name_nothing_is_refused(env: pytest.MonkeyPatch, wrong: str, told: str) -> None:
    assert told in complaint(env, "BRIDGE_CVMS", f"web-1,{wrong}")


def test_the_waits_between_webhook_attempts(env: pytest.MonkeyPatch) -> None:
    env.setenv("BRIDGE_WEBHOOK_RETRY", "0, 0.5,60")
    assert load_settings().webhook_retry == (0.0, 0.5, 60.0)
    for wrong in ("1,two", "-1", "inf", "nan", "1,,2", ",".join(["1"] * 101)):
        complaint(env, "BRIDGE_WEBHOOK_RETRY", wrong)


def test_networks_and_hosts_that_webhooks_may_reach(env: pytest.MonkeyPatch) -> None:
    env.setenv("BRIDGE_WEBHOOK_ALLOW", "10.1.0.0/16, 192.168.0.7,fd00::/8, Hooks.Internal.")
    assert load_settings().webhook_allow == Allowlist(
        (ip_network("10.1.0.0/16"), ip_network("192.168.0.7/32"), ip_network("fd00::/8")), frozenset({"hooks.internal"})
    )
    for wrong in ("10.1.2.3/8", "10.1", "*.internal", "http://x", "a b", "1.2.3.4.5"):
        complaint(env, "BRIDGE_WEBHOOK_ALLOW", wrong)


def test_origins_are_scheme_host_and_port_only(env: pytest.MonkeyPatch) -> None:
    env.setenv("BRIDGE_CORS_ORIGINS", "https://App.example.com/,http://localhost:5173,*")
    assert load_settings().cors_origins == ("https://app.example.com", "http://localhost:5173", "*")
    for wrong in ("app.example.com", "https://x/path", "https://[", "null"):
        complaint(env, "BRIDGE_CORS_ORIGINS", wrong)


def test_the_api_prefix_loses_its_closing_slash_and_must_be_a_plain_url(env: pytest.MonkeyPatch) -> None:
    env.setenv("PHALA_CLOUD_API_PREFIX", "http://127.0.0.1:8001/api/v1/")
    assert load_settings().api_prefix == "http://127.0.0.1:8001/api/v1"
    for wrong in ("cloud-api.phala.com", "ftp://x", "https://", "https://u@h/", "https://h/?a=1", "http://h:x"):
        complaint(env, "PHALA_CLOUD_API_PREFIX", wrong)


def test_the_environment_outranks_the_file_and_the_program_outranks_both(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=::1\nBRIDGE_NAMESPACE='from file'\nOTHER=x\nBRIDGE_CVMS=\n")
    env.setenv("BRIDGE_NAMESPACE", "from-env")
    env.setenv("BRIDGE_HEARTBEAT", "3")
    settings = load_settings(port=3, heartbeat=None)
    shown_values = {name: (value, origin) for name, value, origin in settings.in_force()}
    assert shown_values["PORT"] == ("3", "given")
    assert shown_values["HOST"] == ("::1", ".env")
    assert shown_values["BRIDGE_NAMESPACE"] == ("from-env", "environment")
    assert shown_values["BRIDGE_HEARTBEAT"] == ("3", "environment")
    assert shown_values["BRIDGE_CVMS"] == ("", "default")


def test_a_file_that_cannot_be_read_is_one_line(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"^\.env: cannot be read"):
        load_settings()


def test_names_in_lower_case_are_not_read(env: pytest.MonkeyPatch) -> None:
    env.setenv("port", "1")
    env.setenv("namespace", "x")
    settings = load_settings()
    assert (settings.port, settings.namespace) == (8000, "bridge")


def test_an_unknown_name_gets_one_warning_with_the_nearest_known_one(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BRIDGE_HARTBEAT=3\n")
    env.setenv("BRIDGE_MAX_STREAM", "3")
    env.setenv("BRIDGE_QUUX", "3")
    assert load_settings().warnings == (
        "BRIDGE_HARTBEAT is not a setting; did you mean BRIDGE_HEARTBEAT?",
        "BRIDGE_MAX_STREAM is not a setting; did you mean BRIDGE_MAX_STREAMS?",
        "BRIDGE_QUUX is not a setting",
    )


def test_variables_that_kubernetes_sets_get_no_warning() -> None:
    injected = {
        "BRIDGE_PORT": "tcp://10.0.0.1:8000",
        "BRIDGE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "BRIDGE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "BRIDGE_PORT_8000_TCP_PORT": "8000",
        "BRIDGE_PORT_8000_TCP_PROTO": "tcp",
        "BRIDGE_SERVICE_HOST": "10.0.0.1",
        "BRIDGE_SERVICE_PORT": "8000",
        "BRIDGE_SERVICE_PORT_HTTP": "8000",
        "BRIDGE_WEB_PORT": "tcp://10.0.0.1:8000",
        "BRIDGE_WEB_SERVICE_HOST": "10.0.0.1",
        "BRIDGE_WEB_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_names(injected) == []
    assert unknown_names({"BRIDGE_WEB_PORT": "8000"}) == [
        "BRIDGE_WEB_PORT is not a setting; did you mean BRIDGE_PROBE_PORT?"
    ]


def test_settings_by_field_name_read_no_environment(env: pytest.MonkeyPatch) -> None:
    env.setenv("PORT", "not a number")
    settings = Settings(namespace="x", cvms=("a",))
    assert (settings.namespace, settings.cvms, settings.port) == ("x", ("a",), 8000)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_field_names_follow_from_the_variables() -> None:
    other = {
        "PHALA_CLOUD_API_KEY": "api_key",
        "PHALA_CLOUD_API_PREFIX": "api_prefix",
        "PHALA_WEBHOOK_SECRET": "webhook_secret",
    }
    for field, name in variables().items():
        assert field == other.get(name, name.removeprefix("BRIDGE_").lower())


@given(st.lists(st.from_regex(r"\A[A-Za-z0-9._-]{1,12}\Z"), unique=True, max_size=4), st.data())
def test_any_tokens_are_parsed_as_written(names: list[str], data: st.DataObject) -> None:
    secrets = data.draw(
        st.lists(st.from_regex(r"\A[!-9;-~]{1,20}\Z"), min_size=len(names), max_size=len(names), unique=True)
    )
    scopes = [data.draw(st.sampled_from(["read", "admin"])) for _ in names]
    text = " ".join(map(":".join, zip(names, secrets, scopes, strict=True)))
    found: tuple[Token, ...] = Settings.model_validate({"tokens": text}).tokens
    assert [(token.name, token.secret.get_secret_value(), token.scope) for token in found] == list(
        zip(names, secrets, scopes, strict=True)
    )


@given(st.from_regex(r"\A[A-Za-z0-9:%!$@]{1,20}\Z"))
def test_a_masked_url_shows_no_part_of_a_password(password: str) -> None:
    assert masked_url(f"redis://user:{password}@host:1/0") == "redis://user:***@host:1/0"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h:1?password=a@canary", "redis://h:1?password=***"),
        ("redis://u:canary&password=b@h:1", "redis://u:***@h:1"),
        ("redis://u:canary?x@h:1?db=2", "redis://u:***@h:1?db=2"),
        ("rediss+sentinel://h/m?sentinel_password=canary&ssl_cert_reqs=none", None),
    ],
)
def test_a_password_is_masked_wherever_it_stands(url: str, masked: str | None) -> None:
    assert masked_url(url) == (masked or url.replace("canary", "***"))


def test_big_numbers_are_shown_as_they_are_written() -> None:
    assert [shown(value) for value in (31_536_000.0, 0.1, 10.0, True, None)] == ["31536000", "0.1", "10", "on", ""]
