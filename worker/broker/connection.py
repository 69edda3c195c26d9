"""Celery's connections, which try to reconnect at a fixed interval."""

from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection


class SteadyConnection(Connection):
    """A connection that tries to reconnect every two seconds.

    kombu adds two seconds after each attempt, up to 30, so a worker would come back up to 30 seconds late.
    """

    def ensure_connection(self, *args: Any, **options: Any) -> Connection:
        """Connect; try again until that succeeds."""
        return super().ensure_connection(*args, interval_step=0, **options)


class SteadyAMQP(AMQP):
    """Celery's messaging, which uses these connections."""

    Connection = SteadyConnection
