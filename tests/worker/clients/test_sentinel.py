"""Our client and kombu ask the Sentinels for the primary; ``tests/faults/test_failover.py`` tests real servers."""

import pytest
from kombu.transport.redis import SentinelChannel
from pydantic import SecretStr
from redis.asyncio.sentinel import SentinelConnectionPool

from tasks.queueing.publisher import Publisher
from worker.app import make_publishing_app
from worker.broker.redis_transport import SentinelRedisChannel
from worker.clients.redis import open_redis
from worker.clients.sentinel import kombu_options, kombu_url, primary_options
from worker.config.settings import Settings

URL = "redis+sentinel://archiver:s3cr3t%2Fw0rd@one,[::1]:26380/docv/3"


def test_kombu_s_url_has_every_sentinel_and_its_options_name_the_service() -> None:
    app = make_publishing_app(Settings(redis_url=SecretStr(URL)))
    with app.connection_for_write() as found:
        assert found.alt == [
            "sentinel://archiver:s3cr3t%2Fw0rd@one:26379/3",
            "sentinel://archiver:s3cr3t%2Fw0rd@[::1]:26380/3",
        ]
        assert (found.userid, found.password, found.virtual_host) == ("archiver", "s3cr3t/w0rd", "3")
        assert found.transport_options["master_name"] == "docv"
        assert found.transport.Channel is SentinelRedisChannel


def test_kombu_s_url_has_no_password_if_there_is_none() -> None:
    assert kombu_url("redis+sentinel://one/docv") == "sentinel://one:26379/0"


@pytest.mark.parametrize("option", sorted(kombu_options(URL)))
def test_kombu_accepts_every_option(option: str) -> None:
    assert option in SentinelChannel.from_transport_options


def test_a_publisher_has_the_same_primary_as_a_worker() -> None:
    app = make_publishing_app(Settings(redis_url=SecretStr(URL)))
    options = Publisher(app)._connection.transport_options  # the options for kombu
    assert primary_options(options) == kombu_options(URL) == primary_options(app.conf.broker_transport_options)
    assert options["socket_timeout"] == 2


def test_the_url_of_a_server_has_no_sentinel_options() -> None:
    conf = make_publishing_app(Settings(redis_url=SecretStr("redis://host"))).conf
    assert primary_options(conf.broker_transport_options) == {}


async def test_our_client_uses_user_password_and_database_for_the_primary() -> None:
    async with open_redis(URL, 4) as redis:
        pool = redis.connection_pool
        assert isinstance(pool, SentinelConnectionPool)
        assert (pool.service_name, pool.max_connections) == ("docv", 12)
        expected = {"db": 3, "username": "archiver", "password": "s3cr3t/w0rd", "decode_responses": True}
        assert pool.connection_kwargs.items() >= expected.items()
