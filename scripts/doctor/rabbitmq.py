"""Check RabbitMQ, if it is the broker: connection, login, permissions, and the queues of the workers."""

from collections.abc import Iterator
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import urlsplit

import amqp
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound, PreconditionFailed
from kombu import Connection

from scripts.console.formatting import format_count
from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.broker.envelope import QUEUES
from worker.broker.rabbitmq import publisher_options, tls_options

_WHAT = "RabbitMQ"
_URL = "DOCV_BROKER_URL"
_OLDEST_TESTED = (3, 10)


def examine(url: str) -> Iterator[Finding]:
    """Yield the findings about RabbitMQ; they never show the URL, since it has a password."""
    try:
        with Connection(
            url, transport_options=publisher_options(), ssl=tls_options(url), connect_timeout=2
        ) as connection:
            connection.connect()
            yield judge_version(connection.connection.server_properties)
            for queue in sorted(QUEUES):
                yield _check_queue(connection.connection, queue)
    except AccessRefused:
        yield wrong(_WHAT, "user and password are not accepted", f"fix them in {_URL}, or add the user to RabbitMQ")
    except (NotAllowed, NotFound):
        host = urlsplit(url).path.removeprefix("/") or "/"
        yield wrong(
            _WHAT,
            f"this user has no access to the virtual host {host}",
            f"fix {_URL}: see rabbitmqctl list_permissions",
        )
    except SSLCertVerificationError as error:
        message = f"its certificate is not trusted: {error.verify_message}"
        yield wrong(_WHAT, message, f"use the host name of the certificate in {_URL}", unreachable=True)
    except (AMQPError, OSError) as error:
        message = f"it does not answer ({type(error).__name__})"
        yield wrong(_WHAT, message, f"check that it runs, and that {_URL} is right", unreachable=True)


def judge_version(properties: dict[str, Any]) -> Finding:
    """Return whether the version is at least the oldest that was tested."""
    version = str(properties.get("version", ""))
    message = f"version {version or 'unknown'}, user and virtual host are accepted"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_TESTED:
        return warning(
            _WHAT, message, f"use {'.'.join(map(str, _OLDEST_TESTED))} or later: older versions were not tested"
        )
    return fine(_WHAT, message)


def _check_queue(connection: amqp.Connection, name: str) -> Finding:
    """Check a queue without creating it, on its own channel, since a refused queue closes its channel."""
    what = f"queue {name} in RabbitMQ"
    try:
        with connection.channel() as channel:
            found = channel.queue_declare(name, passive=True)
            message = (
                f"{format_count(found.message_count, 'message')}, {format_count(found.consumer_count, 'consumer')}"
            )
            channel.queue_declare(name, durable=True, auto_delete=False)
    except NotFound:
        return fine(what, "it does not exist yet; the first producer or worker creates it")
    except PreconditionFailed:
        return wrong(
            what,
            "it was created with other properties: not durable, or of another type",
            "remove it: workers create it again",
        )
    except AccessRefused:
        return wrong(what, "this user may not use it", "grant configure, write and read: rabbitmqctl set_permissions")
    return fine(what, message)
