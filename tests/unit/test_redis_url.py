"""REDIS_URL taken apart: the parts that the store connects with."""

from __future__ import annotations

import pytest

from bridge.redis_url import RedisUrl, parse_redis_url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("redis://localhost", RedisUrl(scheme="redis", hosts=(("localhost", 6379),))),
        (
            "rediss://me:p%40ss@[::1]:6380/3",
            RedisUrl(scheme="rediss", hosts=(("::1", 6380),), username="me", password="p@ss", database=3),
        ),
        ("unix:///run/redis.sock?db=1", RedisUrl(scheme="unix", hosts=())),
        (
            "redis+sentinel://:pw@h1,h2:5000/main/2?sentinel_password=guard",
            RedisUrl(
                scheme="redis+sentinel",
                hosts=(("h1", 26379), ("h2", 5000)),
                password="pw",
                master="main",
                database=2,
                sentinel_password="guard",
            ),
        ),
        ("redis+cluster://h1:7000,h2", RedisUrl(scheme="redis+cluster", hosts=(("h1", 7000), ("h2", 6379)))),
    ],
)
def test_each_form_has_its_parts(text: str, parts: RedisUrl) -> None:
    assert parse_redis_url(text) == parts


def test_the_repr_shows_no_password() -> None:
    assert "canary" not in repr(parse_redis_url("redis+sentinel://:canary@h/main?sentinel_password=canary"))
