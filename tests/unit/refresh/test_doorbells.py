from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from proxywell.config.schema import RedisSettings
from proxywell.config.secret import Secret
from proxywell.refresh.engines.celery import doorbell_app, queue_name
from proxywell.refresh.ledgers.redis_address import RedisAddress


def address(url: str, prefix: str = "well") -> RedisAddress:
    return RedisAddress.of(RedisSettings(url=Secret(url), prefix=prefix, allow_plaintext=True))


def test_a_doorbell_is_json_for_a_queue_of_its_own_and_nothing_is_kept_of_it() -> None:
    conf = doorbell_app(address("redis://127.0.0.1")).conf
    assert queue_name(address("redis://127.0.0.1")) == "well.refresh"
    assert conf.task_default_queue == "well.refresh"
    assert list(conf.accept_content) == ["json"]
    assert conf.task_serializer == "json"
    assert conf.result_backend is None
    assert conf.task_ignore_result
    assert not conf.task_acks_late
    assert conf.worker_prefetch_multiplier == 1
    assert conf.broker_connection_max_retries is None
    assert "retry_on_timeout" not in conf.broker_transport_options
    assert conf.broker_transport_options["socket_timeout"] > 0
    assert not conf.worker_enable_remote_control


@pytest.mark.parametrize(
    ("url", "host", "port", "name", "password", "database"),
    [
        ("redis://127.0.0.1", "127.0.0.1", 6379, None, None, "0"),
        ("redis://:s%40crt%2F@127.0.0.1:7000/3", "127.0.0.1", 7000, None, "s@crt/", "3"),
        ("redis://well:p%3Aw@[::1]:7001/1", "::1", 7001, "well", "p:w", "1"),
        ("rediss://well:pw@127.0.0.1:7002", "127.0.0.1", 7002, "well", "pw", "0"),
    ],
)
def test_a_broker_is_where_the_ledger_is(
    url: str, *, host: str, port: int, name: str | None, password: str | None, database: str
) -> None:
    connection = doorbell_app(address(url)).connection_for_write()
    info = connection.info()
    assert (info["hostname"], info["port"]) == (host, port)
    assert (info["userid"] or None, info["password"] or None) == (name, password)
    assert str(info["virtual_host"]).strip("/") in (database, "")
    assert bool(connection.ssl) == url.startswith("rediss")


def test_a_broker_on_a_socket_keeps_path_and_password() -> None:
    app = doorbell_app(address("unix://:pw@/run/a b/redis.sock?db=2"))
    parts = urlsplit(app.conf.broker_url)
    assert parts.scheme == "redis+socket"
    assert unquote(parts.path) == "/run/a b/redis.sock"
    assert parts.query == "virtual_host=2"
    assert parts.password == "pw"
