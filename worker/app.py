"""The Celery application: JSON only, late acknowledgement, two queues, one thread pool.

Every figure here was tried on Celery 5.7 with Redis; ``docs/design.md`` tells what happens without it.
``celery -A worker.app worker`` works like ``docv-archive worker``.
"""

import sys
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery import Celery, signals
from kombu import Queue

from worker.logs import configure_logs
from worker.settings import Settings, SettingsError, load_settings

LIVE, BACKFILL = "live", "backfill"
ARCHIVE_TASK = "docv.archive"
"""Name of the one task; producers use it, and the worker finds it by name."""
KEY_PREFIX = "docv:"
"""Prefix of every key that Celery keeps in Redis."""

# Numbers of the TCP options on Linux: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT (ms).
_KEEPALIVE = {4: 30, 5: 10, 6: 3, 18: 60_000}


def transport_url(redis_url: str) -> str:
    """Return the URL of Redis as kombu writes it.

    A socket is ``redis+socket://`` there and its database a virtual host; over TLS kombu believes any certificate
    unless it is told to check it.
    """
    parts = urlsplit(redis_url)
    query = dict(parse_qsl(parts.query))
    database = query.pop("db", "")
    if parts.scheme == "unix":
        query |= {"virtual_host": database} if database else {}
        return f"redis+socket://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    if parts.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
    path = f"/{database}" if database else parts.path
    return parts._replace(path=path, query=urlencode(query)).geturl()


def worker_transport() -> dict[str, Any]:
    """Return how a worker talks to the queue.

    There is no ``socket_timeout``: after one, a failed acknowledgement never frees its place and the worker
    goes deaf. Keepalive finds a dead connection instead.
    """
    return {
        "global_keyprefix": KEY_PREFIX,
        "visibility_timeout": 3600,
        "unacked_restore_interval": 15,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    } | ({"socket_keepalive_options": _KEEPALIVE} if sys.platform == "linux" else {})


def publisher_transport() -> dict[str, Any]:
    """Return how a publisher talks to the queue: an error is answered within seconds, not waited out."""
    return {
        "global_keyprefix": KEY_PREFIX,
        "visibility_timeout": 3600,
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "max_retries": 0,
    }


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration.

    Raises:
        SettingsError: there is no Redis to speak to.
    """
    return {
        "broker_url": transport_url(settings.need_redis_url()),
        "broker_transport_options": worker_transport(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_queues": [Queue(LIVE, routing_key=LIVE), Queue(BACKFILL, routing_key=BACKFILL)],
        "task_default_queue": LIVE,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_pool": "threads",
        "worker_concurrency": settings.concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
    }


def publishing_app(settings: Settings) -> Celery:
    """Return an application that only publishes, for a process that is no worker.

    Raises:
        SettingsError: there is no Redis to speak to.
    """
    publisher = Celery("docv-archive", set_as_current=False)
    publisher.conf.update(configuration(settings))
    return publisher


def _configuration() -> dict[str, Any]:
    try:
        return configuration(load_settings())
    except SettingsError as error:
        # Celery's own command gets here; whoever started it shall read the sentence, not a traceback.
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


app = Celery("docv-archive", include=["tasks.archive"])
app.add_defaults(_configuration)


@signals.setup_logging.connect(weak=False)
def _setup_logging(**_: object) -> None:
    settings = load_settings()
    configure_logs(settings.log_level, [settings.api_key.get_secret_value()] if settings.api_key else [])
