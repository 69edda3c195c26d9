"""What carries the messages, and how to talk to it: Redis, or RabbitMQ where the settings name one."""

from typing import Any

from celery.app.utils import Settings as Configuration
from kombu.transport import pyamqp

from worker.broker import rabbitmq, redis_transport
from worker.clients import sentinel
from worker.config.redis_url import is_sentinel_url
from worker.config.settings import Settings


def broker_url(settings: Settings) -> str:
    """Return the URL of what carries the messages, as kombu writes it.

    Raises:
        SettingsError: there is no Redis; that is needed in any case.
    """
    redis = redis_transport.broker_transport_url(settings.need_redis_url())
    return settings.broker_url.get_secret_value() if settings.broker_url else redis


def is_rabbitmq(url: str) -> bool:
    """Return whether RabbitMQ carries the messages."""
    return url.startswith("amqp")


def worker_options(settings: Settings) -> dict[str, Any]:
    """Return how a worker talks to it."""
    if settings.broker_url:
        return rabbitmq.worker_options()
    url = settings.need_redis_url()
    return redis_transport.worker_transport_options() | (sentinel.kombu_options(url) if is_sentinel_url(url) else {})


def publisher_options(conf: Configuration) -> dict[str, Any]:
    """Return how a publisher of an application talks to it: an error is answered within seconds, not waited out."""
    if is_rabbitmq(conf.broker_url):
        return rabbitmq.publisher_options()
    return redis_transport.publisher_transport_options() | sentinel.same_primary(conf.broker_transport_options)


def install_channels() -> None:
    """Have every connection of this process use our channels."""
    redis_transport.install_channels()
    pyamqp.Connection.Channel = rabbitmq.RabbitChannel
