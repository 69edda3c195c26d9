"""A worker without a ledger: the same Celery and queue, and a task that archives directly.

The fault tests kill it like ours, to show that they detect a loss.
"""

import os
import urllib.error
import urllib.request
from pathlib import Path

from celery import Celery
from kombu import Queue

from worker.broker.redis_transport import KEY_PREFIX

DOWNLOAD_TASK = "download"
QUEUE = "live"
COMMAND = (
    "celery",
    "-A",
    "tests.faults.without_ledger",
    "worker",
    "-l",
    "INFO",
    "--without-gossip",
    "--without-mingle",
)
VISIBILITY_SECONDS = 5


def application(redis_url: str) -> Celery:
    """Return an application with late acknowledgement, whose unacknowledged messages are soon redelivered.

    ``worker.app`` is not imported: it would install our own channel, which leaves redelivery to the ledger.
    """
    celery_app = Celery("without-ledger", broker=redis_url, set_as_current=False)
    celery_app.conf.update(
        # The default exchange needs no binding, so messages may be sent before a worker has started.
        task_queues=[Queue(QUEUE, routing_key=QUEUE)],
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_ignore_result=True,
        worker_pool="threads",
        worker_concurrency=8,
        worker_prefetch_multiplier=1,
        broker_transport_options={
            "global_keyprefix": KEY_PREFIX,
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 2,
            "unacked_mutex_expire": 2,
        },
    )
    return celery_app


def download(eval_id: str) -> None:
    """Download one evaluation and store it in the folder."""
    url = f"{os.environ['DOCV_RISKOS_URL']}/api/evaluation/{eval_id}/documents"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['DOCV_API_KEY']}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # the simulator's
            body = answer.read()
    except urllib.error.HTTPError as refusal:
        body = refusal.read()
    folder = Path("downloaded")
    folder.mkdir(exist_ok=True)
    (folder / eval_id).write_bytes(body)


app = application(os.environ.get("DOCV_REDIS_URL", "redis://127.0.0.1"))
app.task(name=DOWNLOAD_TASK)(download)
