"""Examine RabbitMQ, where that carries the messages: does it answer, let us in, and have the queues workers read?"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import amqp
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound, PreconditionFailed
from kombu import Connection

from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.broker.envelope import QUEUES
from worker.broker.rabbitmq import publisher_options

_WHAT = "RabbitMQ"
_URL = "DOCV_BROKER_URL"
_TRIED = (3, 10)


def examine(url: str) -> Iterator[Finding]:
    """Yield what there is to say of RabbitMQ; the URL is never shown, for it holds a password."""
    try:
        with Connection(url, transport_options=publisher_options(), connect_timeout=2) as connection:
            connection.connect()
            yield version(connection.connection.server_properties)
            for queue in sorted(QUEUES):
                yield _queue(connection.connection, queue)
    except AccessRefused:
        yield wrong(_WHAT, "it does not accept user and password", f"mend them in {_URL}, or add the user to RabbitMQ")
    except (NotAllowed, NotFound):
        host = urlsplit(url).path.removeprefix("/") or "/"
        yield wrong(_WHAT, f"this user has no virtual host {host}", f"mend {_URL}: rabbitmqctl list_permissions tells")
    except (AMQPError, OSError) as error:
        said = f"it does not answer ({type(error).__name__})"
        yield wrong(_WHAT, said, f"see that it runs and that {_URL} names it", unreachable=True)


def version(facts: dict[str, Any]) -> Finding:
    """Return whether it is one that workers were tried on, or a later one."""
    told = str(facts.get("version", ""))
    said = f"version {told or 'untold'}, user and virtual host are accepted"
    numbers = tuple(int(part) for part in told.split(".")[:2] if part.isdigit())
    if numbers < _TRIED:
        return warning(_WHAT, said, f"use {'.'.join(map(str, _TRIED))} or later: nothing older was tried")
    return fine(_WHAT, said)


def _queue(connection: amqp.Connection, name: str) -> Finding:
    """Look at a queue without making it; a queue that is refused ends its channel, so each has its own."""
    what = f"queue {name} in RabbitMQ"
    try:
        with connection.channel() as channel:
            found = channel.queue_declare(name, passive=True)
            said = f"{found.message_count} messages, {found.consumer_count} consumers"
            channel.queue_declare(name, durable=True, auto_delete=False)
    except NotFound:
        return fine(what, "it is not there yet; whoever comes first makes it")
    except PreconditionFailed:
        return wrong(what, "it was made otherwise: not durable, or of another kind", "remove it: workers make it anew")
    except AccessRefused:
        return wrong(what, "this user may not use it", "give configure, write and read: rabbitmqctl set_permissions")
    return fine(what, said)
