"""The Celery application: JSON only, late acknowledgement, two queues, one thread pool.

Every figure here was tried on Celery 5.7 with Redis; ``docs/design.md`` tells what happens without it.
``celery -A worker.app worker`` works like ``docv-archive worker``.
"""

import sys
from typing import Any

from celery import Celery, signals
from kombu import Queue

from worker.broker.envelope import BACKFILL, LIVE
from worker.broker.options import broker_url, install_channels, is_rabbitmq, worker_options
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, SettingsError, load_settings
from worker.logs import configure_logs

_LIVE_THREADS = 8


def make_configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration.

    Raises:
        SettingsError: there is no Redis to speak to.
    """
    url = broker_url(settings)
    return {
        "broker_url": url,
        "broker_transport_options": worker_options(settings),
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
        # A backfill never has so many messages here that there is no place for what is live: see `tasks.consumer`.
        "worker_concurrency": settings.concurrency + _LIVE_THREADS,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Celery's threads would each talk to RabbitMQ about that over the one connection, and then nobody hears it.
        "worker_enable_prefetch_count_reduction": not is_rabbitmq(url),
        "worker_enable_remote_control": settings.celery_events,
        "worker_send_task_events": settings.celery_events,
        "worker_hijack_root_logger": False,
    }


def make_publishing_app(settings: Settings) -> Celery:
    """Return an application that only publishes, for a process that is no worker.

    Raises:
        SettingsError: there is no Redis to speak to.
    """
    publisher = Celery("docv-archive", set_as_current=False)
    publisher.conf.update(make_configuration(settings))
    return publisher


def _configuration() -> dict[str, Any]:
    try:
        settings = load_settings()
        load_accounts(settings)
        return make_configuration(settings)
    except SettingsError as error:
        # Celery's own command gets here; whoever started it shall read the sentence, not a traceback.
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


install_channels()
app = Celery("docv-archive", include=["tasks.archive"])
app.add_defaults(_configuration)


@signals.setup_logging.connect(weak=False)
def _setup_logging(**_: object) -> None:
    settings = load_settings()
    configure_logs(settings.log_level, load_accounts(settings).secrets())
