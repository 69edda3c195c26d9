"""The Celery application: JSON only, late acknowledgement, two queues, one thread pool.

Every option here was tested on Celery 5.7 with Redis. ``docs/design.md`` says what happens without the important ones.
``celery -A worker.app worker`` works like ``docv-archive worker``, but looks for ``worker`` in the working directory
first, so run it in an empty folder only.
"""

import sys
from typing import Any

from celery import Celery, signals
from celery.loaders.app import AppLoader
from celery.worker import WorkController
from kombu import Queue

from worker.broker.connection import SteadyAMQP
from worker.broker.envelope import BACKFILL, LIVE
from worker.broker.options import broker_url, install_channels, is_rabbitmq, tls_options, worker_options
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, SettingsError, load_settings
from worker.logs import configure_logs

_LIVE_THREADS = 8


class InstalledLoader(AppLoader):
    """Import modules from Python's path only. The working directory may be that of another project."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import a module; Celery's own loader would look in the working directory first."""
        return (imp or self.import_module)(module, package=package)


def make_configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration.

    Raises:
        SettingsError: no Redis is configured.
    """
    url = broker_url(settings)
    return {
        "broker_url": url,
        "broker_transport_options": worker_options(settings),
        "broker_use_ssl": tls_options(settings) or False,
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
        # `tasks.consumer` bounds the messages of a backfill, so that live messages always find a free thread.
        "worker_concurrency": settings.concurrency + _LIVE_THREADS,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # With RabbitMQ, Celery's threads would share one connection and read each other's answers; see docs/design.md.
        "worker_enable_prefetch_count_reduction": not is_rabbitmq(url),
        "worker_enable_remote_control": settings.celery_events,
        "worker_send_task_events": settings.celery_events,
        "worker_hijack_root_logger": False,
    }


def make_publishing_app(settings: Settings) -> Celery:
    """Return an application that only publishes, for a process that is not a worker.

    Raises:
        SettingsError: no Redis is configured.
    """
    publisher = Celery("docv-archive", loader=InstalledLoader, amqp=SteadyAMQP, fixups=(), set_as_current=False)
    publisher.conf.update(make_configuration(settings))
    return publisher


def _configuration() -> dict[str, Any]:
    try:
        settings = load_settings()
        load_accounts(settings)
        return make_configuration(settings)
    except SettingsError as error:
        # This runs in Celery's own command, which would show the error as a traceback.
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


install_channels()
# Celery has one fixup, which would load a Django project from the working directory.
app = Celery("docv-archive", loader=InstalledLoader, amqp=SteadyAMQP, fixups=(), include=["tasks.archive"])
app.add_defaults(_configuration)


@signals.celeryd_init.connect(weak=False)
def _use_one_log_format(instance: WorkController, **_: object) -> None:
    """Use our log format from the first line on, without a banner."""
    _setup_logging()
    instance.quiet = True
    # Celery writes "Warm shutdown" to `sys.__stdout__`, bypassing every logger, and skips it if that is None.
    sys.__stdout__ = None  # type: ignore[misc]  # Final in typeshed


@signals.setup_logging.connect(weak=False)
def _setup_logging(**_: object) -> None:
    settings = load_settings()
    configure_logs(settings.log_level, load_accounts(settings).secrets())
