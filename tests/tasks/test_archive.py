"""The task, called as Celery's worker calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spans import PARENT

EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
# Each script is run in a process of its own: Celery's application reads the settings once and keeps them.
CALL = """
import json, sys
from celery.app.trace import build_tracer
from tasks import archive as module
from tasks.errors import BadMessage

class Recorder:
    def check(self, message):
        if message.account == "unknown":
            raise BadMessage("it names an unknown account")

    def handle(self, message):
        print("handled", *message.eval_ids, message.traceparent)
        return message.account != "draining"

    def reject(self, errors, queue, message):
        print("rejected", *(error.cause for error in errors), queue, message)
        return True

module._process = Recorder()
headers = {"traceparent": sys.argv[2]} if sys.argv[2:] else {}
run = build_tracer(module.archive.name, module.archive, app=module.app)
ended = run("an ID", (), json.loads(sys.argv[1]), {"id": "an ID", "delivery_info": {"routing_key": "live"}, **headers})
print(ended.info.state if ended.info else "done", bool(ended.info and ended.info.retval.requeue))
"""
REJECT = """
from celery.signals import task_rejected
from tasks import archive as module
from worker.broker.envelope import BadEnvelope

class Recorder:
    def reject(self, errors, queue, message):
        print(*(error.safe_message for error in errors), repr(queue), repr(message))

module._process = Recorder()
task_rejected.send(None, message=None, exc=BadEnvelope("it is not a JSON object"))
task_rejected.send(None, message=None, exc=ValueError("Jane Doe is not JSON"))
"""
STOP = """
from celery import signals
from tasks import archive as module

class Recorder:
    drain = staticmethod(lambda: print("drained"))
    close = staticmethod(lambda: print("closed"))

module._process = Recorder()
signals.worker_shutting_down.send(None, sig="SIGTERM", how="Warm", exitcode=0)
for _ in range(2):
    signals.worker_shutdown.send(None)
"""


def call(folder: Path, arguments: str, *traceparent: str) -> list[str]:
    """Call the task with JSON arguments; return what it did, and how it ended."""
    return run_script(folder, CALL, arguments, *traceparent)


def run_script(folder: Path, script: str, *arguments: str) -> list[str]:
    called = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "DOCV_REDIS_URL": "redis://127.0.0.1:9/0", "DOCV_API_KEY": "a-key"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert called.returncode == 0, called.stderr
    return called.stdout.splitlines()


@pytest.mark.parametrize("traceparent", [(PARENT,), ()], ids=["traced", "not traced"])
def test_the_header_of_a_producer_s_trace_reaches_the_message(traceparent: tuple[str, ...], tmp_path: Path) -> None:
    handled, *_ = call(tmp_path, f'{{"eval_ids": ["{EVAL_ID}"]}}', *traceparent)
    assert handled == f"handled {EVAL_ID} {traceparent[0] if traceparent else None}"


def test_a_message_is_acknowledged_when_its_evaluations_are_processed(tmp_path: Path) -> None:
    assert call(tmp_path, f'{{"eval_ids": ["{EVAL_ID}"]}}') == [
        f"handled {EVAL_ID} None",
        "rejected live an ID",
        "done False",
    ]


def test_only_the_invalid_ids_of_a_message_are_rejected(tmp_path: Path) -> None:
    assert call(tmp_path, f'{{"eval_ids": ["{EVAL_ID}", "no ID"]}}') == [
        f"handled {EVAL_ID} None",
        "rejected bad_eval_id live an ID",
        "done False",
    ]


@pytest.mark.parametrize("arguments", ["{}", f'{{"eval_ids": ["{EVAL_ID}"], "account": "unknown"}}'])
def test_a_message_that_does_not_fit_the_contract_is_rejected_and_acknowledged(arguments: str, tmp_path: Path) -> None:
    assert call(tmp_path, arguments) == ["rejected bad_message live an ID", "done False"]


def test_a_message_goes_back_to_its_queue_when_the_process_is_draining(tmp_path: Path) -> None:
    assert call(tmp_path, f'{{"eval_ids": ["{EVAL_ID}"], "account": "draining"}}') == [
        f"handled {EVAL_ID} None",
        "REJECTED True",
    ]


def test_a_message_that_celery_cannot_read_is_rejected_without_its_text(tmp_path: Path) -> None:
    assert run_script(tmp_path, REJECT) == [
        "the message does not fit the contract: it is not a JSON object 'queue' ''",
        "the message does not fit the contract: Celery cannot read it 'queue' ''",
    ]


def test_a_worker_that_stops_drains_and_then_closes_its_process_once(tmp_path: Path) -> None:
    assert run_script(tmp_path, STOP) == ["drained", "closed"]
