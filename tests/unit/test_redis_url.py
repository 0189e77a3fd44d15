"""REDIS_URL taken apart: the parts that the store connects with, and what is refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config_values import masked_url
from bridge.redis_url import parse_redis_url
from bridge.store.connection import connect

HOSTS = {
    "redis://localhost": (("localhost", 6379),),
    "rediss://[::1]:6380/3": (("::1", 6380),),
    "unix:///run/redis.sock?db=1": (),
    "redis+sentinel://h1,h2:5000/main/2": (("h1", 26379), ("h2", 5000)),
    "redis+cluster://h1:7000,[fd00::2],h3/0": (("h1", 7000), ("fd00::2", 6379), ("h3", 6379)),
}

#: Every form with room for a user before the place, and the options that go with it.
FORMS = [
    "redis://{user}@h:1/2",
    "rediss://{user}@[::1]/2",
    "unix://{user}@/run/redis.sock?db=2",
    "redis+sentinel://{user}@h1,h2/main/2",
    "rediss+sentinel://{user}@h1,h2/main/2",
    "redis+cluster://{user}@h1,h2:7001",
    "rediss+cluster://{user}@h1,h2:7001",
]


@pytest.mark.parametrize(("url", "hosts"), HOSTS.items())
def test_each_form_has_its_hosts(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    assert parse_redis_url(url).hosts == hosts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("password", ["@", ":", "/", "%", " ", "?", "#", "a@b:c/d%40 e?f#g&h=i+j[k]", "pässwörd"])
def test_an_encoded_password_arrives_as_it_is(form: str, password: str) -> None:
    options = parse_redis_url(form.format(user=f"m%40e:{quote(password, safe='')}")).options
    assert (options["username"], options["password"]) == ("m@e", password)
    assert options.get("db") == (None if "cluster" in form else 2)


@pytest.mark.parametrize("form", FORMS)
def test_the_password_may_stand_without_a_user(form: str) -> None:
    assert parse_redis_url(form.format(user=":pw")).options.get("password") == "pw"


def test_the_sentinels_have_a_user_of_their_own_and_the_same_tls() -> None:
    query = "sentinel_username=guard&sentinel_password=s%26t&ssl_ca_certs=/ca.pem&ssl_check_hostname=no"
    url = parse_redis_url(f"rediss+sentinel://me:pw@h/main?{query}")
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}
    assert url.options == {"username": "me", "password": "pw", **tls}
    assert url.sentinel_options == {"username": "guard", "password": "s&t", **tls}


@pytest.mark.parametrize("form", ["rediss://h", "rediss+sentinel://h/main", "rediss+cluster://h"])
def test_only_a_scheme_with_tls_takes_options_of_tls(form: str) -> None:
    query = "ssl_ca_certs=a&ssl_certfile=b&ssl_keyfile=c&ssl_cert_reqs=none&ssl_check_hostname=false"
    assert parse_redis_url(f"{form}?{query}").options["ssl"] is True
    for asked in (*query.split("&"), "ssl=true", "SSL=1", "tls=true", "ssl"):
        with pytest.raises(ValueError, match="needs a scheme that begins with rediss"):
            parse_redis_url(f"{form.replace('rediss', 'redis')}?{asked}")


@pytest.mark.parametrize(
    "url",
    [
        "rediss://h?ssl=true",
        "rediss://h?SSL_CA_CERTS=/ca.pem",
        "redis://h?canary=1",
        "redis://h?canary",
        "redis://h?decode_responses=canary",
        "redis://h?sentinel_password=canary",
        "redis+cluster://h?db=canary",
        "redis+cluster://h/1",
        "redis+cluster://h?db=1",
        "redis://h?db=canary",
        "redis://me:canary x@h",
        "redis://me:12#canary@h",
        "redis://me:12/canary@h",
        "redis://me:12?canary@h",
        "redis://me:canary[@h",
        "redis://:canary@",
        "rediss+unix:///run/canary",
        "unix://canary/redis.sock",
        "unix:///run/redis.sock?ssl_ca_certs=canary",
    ],
)
def test_what_redis_py_would_overlook_is_refused_without_a_quote(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        parse_redis_url(url)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("form", ["rediss://h", "rediss+sentinel://h/main", "rediss+cluster://h"])
@pytest.mark.parametrize("option", ["ssl_ca_certs=/no/such", "ssl_keyfile=/no/such", "ssl_cert_reqs=sometimes"])
async def test_tls_that_cannot_be_set_up_is_found_before_anything_is_sent(form: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"TLS cannot be set up.*{option.partition('=')[2]}"):
        connect(f"{form}?{option}", "bridge")


@given(st.sampled_from(FORMS), st.text(min_size=1, max_size=12))
def test_any_password_arrives_and_is_never_shown(form: str, password: str) -> None:
    user = f"me:{quote(f'canary{password}', safe='', errors='replace')}"
    url = parse_redis_url(form.format(user=user))
    assert url.options["password"].startswith("canary")
    assert "canary" not in repr(url)
    assert "canary" not in masked_url(form.format(user=user))


def test_the_repr_shows_no_password_of_the_sentinels() -> None:
    assert "canary" not in repr(parse_redis_url("redis+sentinel://h/main?sentinel_password=canary"))
