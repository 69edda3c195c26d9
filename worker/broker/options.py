"""Options for the broker, which is Redis, or RabbitMQ if the settings name one."""

from typing import Any

from celery.app.utils import Settings as Configuration
from kombu.transport import pyamqp

from worker.broker import rabbitmq, redis_transport
from worker.clients import sentinel
from worker.config.redis_url import is_sentinel_url
from worker.config.settings import Settings


def broker_url(settings: Settings) -> str:
    """Return the URL of the broker in kombu's form.

    Raises:
        SettingsError: no Redis is configured, which is needed even with RabbitMQ.
    """
    redis = redis_transport.broker_transport_url(settings.need_redis_url())
    return settings.broker_url.get_secret_value() if settings.broker_url else redis


def is_rabbitmq(url: str) -> bool:
    """Return whether the broker at a URL is RabbitMQ."""
    return url.startswith("amqp")


def worker_options(settings: Settings) -> dict[str, Any]:
    """Return kombu's options for a worker."""
    if settings.broker_url:
        return rabbitmq.worker_options()
    url = settings.need_redis_url()
    return redis_transport.worker_transport_options() | (sentinel.kombu_options(url) if is_sentinel_url(url) else {})


def tls_options(settings: Settings) -> dict[str, Any] | None:
    """Return the TLS options that kombu does not take from the URL of the broker, or None."""
    if settings.broker_url:
        return rabbitmq.tls_options(settings.broker_url.get_secret_value())
    url = settings.need_redis_url()
    return sentinel.kombu_tls(url) if is_sentinel_url(url) else None


def publisher_options(conf: Configuration) -> dict[str, Any]:
    """Return kombu's options for a publisher, which fails within seconds if the broker does not answer."""
    if is_rabbitmq(conf.broker_url):
        return rabbitmq.publisher_options()
    return redis_transport.publisher_transport_options() | sentinel.primary_options(conf.broker_transport_options)


def install_channels() -> None:
    """Make every connection of this process use our channels."""
    redis_transport.install_channels()
    pyamqp.Connection.Channel = rabbitmq.RabbitChannel
