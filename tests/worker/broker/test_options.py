"""Redis carries the messages, and RabbitMQ does where the settings name one; Redis keeps everything else."""

import pytest
from pydantic import SecretStr

from worker.app import make_publishing_app
from worker.broker.options import broker_url, is_rabbitmq, publisher_options, worker_options
from worker.broker.redis_transport import publisher_transport_options, worker_transport_options
from worker.config.settings import Settings, SettingsError

REDIS = SecretStr("redis://host:6379/0")
RABBITMQ = "amqp://user:word@rabbit.example:5672/docv"


def test_redis_carries_the_messages_where_nothing_else_is_named() -> None:
    settings = Settings(redis_url=REDIS)
    assert broker_url(settings) == "redis://host:6379/0"
    assert worker_options(settings) == worker_transport_options()
    assert publisher_options(make_publishing_app(settings).conf) == publisher_transport_options()


def test_rabbitmq_carries_them_where_it_is_named() -> None:
    url = broker_url(Settings(redis_url=REDIS, broker_url=SecretStr(RABBITMQ)))
    assert url == RABBITMQ
    assert is_rabbitmq(url)


def test_redis_is_needed_in_any_case() -> None:
    with pytest.raises(SettingsError, match="DOCV_REDIS_URL"):
        broker_url(Settings(broker_url=SecretStr(RABBITMQ)))


def test_celery_s_threads_do_not_talk_to_rabbitmq_about_places() -> None:
    app = make_publishing_app(Settings(redis_url=REDIS, broker_url=SecretStr(RABBITMQ)))
    assert app.conf.worker_enable_prefetch_count_reduction is False


def test_kombu_reads_the_address_as_it_is_meant() -> None:
    found = make_publishing_app(Settings(redis_url=REDIS, broker_url=SecretStr(RABBITMQ))).connection_for_write()
    assert (found.hostname, found.virtual_host) == ("rabbit.example", "docv")
    assert (found.userid, found.password) == ("user", "word")
    assert found.transport.driver_type == "amqp"
