"""The real servers that other tests lean on do what their names say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from tests.servers import eventually

if TYPE_CHECKING:
    from tests.servers import Guarded, RealServer


def test_a_restarted_server_has_its_data_and_its_address(own_server: RealServer) -> None:
    own_server.call("SET", "key", "kept")
    url = own_server.url
    own_server.restart()
    assert own_server.url == url
    assert own_server.call("GET", "key") == "kept"


def test_a_frozen_server_is_silent_until_it_is_thawed(own_server: RealServer) -> None:
    with redis.Redis.from_url(own_server.url, socket_timeout=0.05) as client:
        own_server.freeze()
        try:
            client.ping()
        except redis.TimeoutError:
            silent = True
        else:
            silent = False
        own_server.thaw()
    assert silent
    assert own_server.call("PING") is True


def test_the_cluster_of_one_node_has_all_slots(redis_cluster: RealServer) -> None:
    with redis.RedisCluster.from_url(f"redis://127.0.0.1:{redis_cluster.port}") as client:
        assert client.set("{bridge}:key", "1")
        assert client.get("{bridge}:key") == b"1"


def test_the_sentinel_fails_over_when_the_primary_is_killed(redis_guarded: Guarded) -> None:
    assert redis_guarded.sentinel.primary_port() == redis_guarded.primary.port
    redis_guarded.primary.kill()
    eventually(lambda: redis_guarded.sentinel.primary_port() == redis_guarded.replica.port, "the failover")
    eventually(lambda: redis_guarded.replica.call("SET", "key", "1") is True, "writing to the promoted replica")


def test_each_test_gets_the_shared_server_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("key", "1")


def test_each_test_gets_the_shared_server_empty_again(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
