"""The task, called as Celery's worker calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spans import PARENT

EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
# In a process of its own: Celery's application reads the settings once and keeps them.
CALL = """
import sys
from celery.app.trace import build_tracer
from tasks import archive as module

class Recorder:
    check = reject = staticmethod(lambda *_: True)
    handle = staticmethod(lambda message: print(message.eval_ids[0], message.traceparent) is None)

module._process = Recorder()
headers = {"traceparent": sys.argv[2]} if sys.argv[2:] else {}
run = build_tracer(module.archive.name, module.archive, app=module.app)
run("an ID", (), {"eval_ids": [sys.argv[1]]}, {"id": "an ID", "delivery_info": {"routing_key": "live"}, **headers})
"""


@pytest.mark.parametrize("traceparent", [PARENT, None], ids=["traced", "not traced"])
def test_the_header_of_a_producer_s_trace_reaches_the_message(traceparent: str | None, tmp_path: Path) -> None:
    given = [EVAL_ID, traceparent] if traceparent else [EVAL_ID]
    called = subprocess.run(
        [sys.executable, "-c", CALL, *given],
        cwd=tmp_path,
        env={**os.environ, "DOCV_REDIS_URL": "redis://127.0.0.1:9/0", "DOCV_API_KEY": "a-key"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert called.stdout == f"{EVAL_ID} {traceparent}\n", called.stderr
