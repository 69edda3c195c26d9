"""What carries the messages, and how to talk to it: Redis, or RabbitMQ where the settings name one."""

from typing import Any

from worker import rabbitmq, transport
from worker.settings import Settings


def broker_url(settings: Settings) -> str:
    """Return the URL of what carries the messages, as kombu writes it.

    Raises:
        SettingsError: there is no Redis; that is needed in any case.
    """
    redis = transport.transport_url(settings.need_redis_url())
    return settings.broker_url.get_secret_value() if settings.broker_url else redis


def is_rabbitmq(url: str) -> bool:
    """Return whether RabbitMQ carries the messages."""
    return url.startswith("amqp")


def worker_options(url: str) -> dict[str, Any]:
    """Return how a worker talks to it."""
    return rabbitmq.worker_options() if is_rabbitmq(url) else transport.worker_transport()


def publisher_options(url: str) -> dict[str, Any]:
    """Return how a publisher talks to it: an error is answered within seconds, not waited out."""
    return rabbitmq.publisher_options() if is_rabbitmq(url) else transport.publisher_transport()


def use_our_channels() -> None:
    """Have every connection of this process use our channels."""
    transport.use_our_channel()
    rabbitmq.use_our_channel()
