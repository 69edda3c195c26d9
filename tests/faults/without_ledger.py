"""A worker as one would write it without a ledger: the same Celery, the same queue, a task that carries directly.

The fault tests kill it as they kill ours, to see that they can see a loss.
"""

import os
import urllib.error
import urllib.request
from pathlib import Path

from celery import Celery
from pydantic import SecretStr

from worker.app import make_configuration
from worker.broker.envelope import ARCHIVE_TASK
from worker.config.settings import Settings

CARRY_TASK = ARCHIVE_TASK
"""Our channel drops messages to any other task."""
COMMAND = ("celery", "-A", "tests.faults.without_ledger", "worker", "--without-gossip", "--without-mingle")
VISIBILITY_SECONDS = 5


def application(redis_url: str) -> Celery:
    """Return an application with our configuration; what is not acknowledged comes back soon."""
    made = Celery("without-ledger", set_as_current=False)
    made.conf.update(make_configuration(Settings(redis_url=SecretStr(redis_url), concurrency=8)))
    made.conf.broker_transport_options |= {
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 2,
        "unacked_mutex_expire": 2,
    }
    return made


def carry(eval_id: str) -> None:
    """Download one evaluation and put it into the folder."""
    url = f"{os.environ['DOCV_RISKOS_URL']}/api/evaluation/{eval_id}/documents"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['DOCV_API_KEY']}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # the simulator's
            body = answer.read()
    except urllib.error.HTTPError as refusal:
        body = refusal.read()
    folder = Path("carried")
    folder.mkdir(exist_ok=True)
    (folder / eval_id).write_bytes(body)


app = application(os.environ.get("DOCV_REDIS_URL", "redis://127.0.0.1"))
app.task(name=CARRY_TASK)(carry)
