"""Redis is the broker, unless the settings name RabbitMQ. All other data is in Redis in both cases."""

import pytest
from pydantic import SecretStr

from worker.app import make_publishing_app
from worker.broker.options import broker_url, is_rabbitmq, publisher_options, worker_options
from worker.broker.redis_transport import publisher_transport_options, worker_transport_options
from worker.config.settings import Settings, SettingsError

REDIS = SecretStr("redis://host:6379/0")
RABBITMQ = "amqp://user:word@rabbit.example:5672/docv"


def test_redis_is_the_broker_by_default() -> None:
    settings = Settings(redis_url=REDIS)
    assert broker_url(settings) == "redis://host:6379/0"
    assert worker_options(settings) == worker_transport_options()
    assert publisher_options(make_publishing_app(settings).conf) == publisher_transport_options()


def test_rabbitmq_is_the_broker_if_the_settings_name_it() -> None:
    url = broker_url(Settings(redis_url=REDIS, broker_url=SecretStr(RABBITMQ)))
    assert url == RABBITMQ
    assert is_rabbitmq(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqps://user:word@Rabbit.example:5671/docv", {"server_hostname": "rabbit.example"}),
        ("amqps://localhost", {"server_hostname": "localhost"}),
        ("amqps://[::1]:5671", {"server_hostname": "::1"}),
        (RABBITMQ, False),
    ],
)
def test_the_name_in_rabbitmq_s_certificate_is_checked(url: str, expected: object) -> None:
    app = make_publishing_app(Settings(redis_url=REDIS, broker_url=SecretStr(url)))
    assert app.conf.broker_use_ssl == expected
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert connection.ssl == expected


def test_redis_is_needed_even_with_rabbitmq() -> None:
    with pytest.raises(SettingsError, match="DOCV_REDIS_URL"):
        broker_url(Settings(broker_url=SecretStr(RABBITMQ)))


def test_prefetch_count_reduction_is_off_with_rabbitmq() -> None:
    app = make_publishing_app(Settings(redis_url=REDIS, broker_url=SecretStr(RABBITMQ)))
    assert app.conf.worker_enable_prefetch_count_reduction is False


def test_kombu_parses_the_url_of_rabbitmq_correctly() -> None:
    found = make_publishing_app(Settings(redis_url=REDIS, broker_url=SecretStr(RABBITMQ))).connection_for_write()
    assert (found.hostname, found.virtual_host) == ("rabbit.example", "docv")
    assert (found.userid, found.password) == ("user", "word")
    assert found.transport.driver_type == "amqp"
