"""The usual Celery worker: prefork, one task for each evaluation, requests and boto3."""

import os

from celery import Celery

from tests.bench.peers.blocking import Archiver
from tests.bench.peers.place import TASK

_PROCESSES = 8

app = Celery("bench", broker=os.environ.get("BENCH_REDIS"))
app.conf.update(
    task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1, worker_concurrency=_PROCESSES
)
_archivers: list[Archiver] = []


@app.task(name=TASK)
def archive(eval_id: str) -> None:
    """Archive one evaluation; each process makes its session and client once."""
    if not _archivers:
        _archivers.append(Archiver(1))
    _archivers[0].archive(eval_id)


def main() -> None:
    """Run the worker."""
    app.Worker(loglevel="INFO").start()


if __name__ == "__main__":
    main()
