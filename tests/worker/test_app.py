"""The configuration of a worker is read in a separate process, because an application reads its settings once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS
from pydantic import SecretStr

from worker.app import make_configuration, make_publishing_app
from worker.config.settings import Settings, SettingsError

ELSEWHERE = "redis://queue.example:6379/3"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the numbers of the TCP options are those of Linux")

_PRINT_CONF = """
import json
from worker.app import app
names = %r
print(json.dumps({name: app.conf[name] for name in names} | {
    "queues": {queue.name: queue.routing_key for queue in app.conf.task_queues},
    "main": app.main,
    "include": list(app.conf.include),
}))
"""

# The options that docs/design.md explains.
WIRING = {
    "broker_url": ELSEWHERE,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_acks_late": True,
    "task_acks_on_failure_or_timeout": True,
    "worker_prefetch_multiplier": 1,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_default_queue": "live",
    "worker_pool": "threads",
    "worker_concurrency": 7 + 8,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "result_backend": None,
    "task_always_eager": False,
}


def run(code: str, *, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def worker_conf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    code = _PRINT_CONF % ([*WIRING, "broker_transport_options"],)
    finished = run(code, cwd=tmp_path_factory.mktemp("app"), DOCV_REDIS_URL=ELSEWHERE, DOCV_CONCURRENCY="7")
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def settings(redis_url: str = ELSEWHERE) -> Settings:
    return Settings(redis_url=SecretStr(redis_url))


# -- the application of a worker


@pytest.mark.parametrize("name", WIRING)
def test_the_configuration_of_a_worker_has_the_tested_values(worker_conf: dict[str, Any], name: str) -> None:
    assert worker_conf[name] == WIRING[name]


def test_a_worker_consumes_two_queues_and_imports_the_task(worker_conf: dict[str, Any]) -> None:
    assert worker_conf["queues"] == {"live": "live", "backfill": "backfill"}
    assert (worker_conf["main"], worker_conf["include"]) == ("docv-archive", ["tasks.archive"])


@LINUX
def test_the_transport_options_of_a_worker_have_the_tested_values(worker_conf: dict[str, Any]) -> None:
    assert worker_conf["broker_transport_options"] == {
        "global_keyprefix": "docv:",
        "visibility_timeout": 3600,
        "unacked_restore_interval": 15,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "queue_order_strategy": "worker.broker.redis_transport:LiveFirst",
        "health_check_interval": 2,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "socket_keepalive_options": {"4": 30, "5": 10, "6": 3, "18": 60_000},
    }


def test_celery_knows_every_option_of_the_configuration() -> None:
    assert make_configuration(settings()).keys() <= set(SETTING_KEYS)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, "DOCV_REDIS_URL is not set"),
        ({"DOCV_REDIS_URL": ELSEWHERE, "DOCV_RATE": "fast"}, "DOCV_RATE: "),
        ({"DOCV_REDIS_URL": ELSEWHERE, "DOCV_RAET": "4"}, "DOCV_RAET is not a setting"),
    ],
)
def test_celery_exits_with_one_line_if_settings_are_not_valid(
    tmp_path: Path, environment: dict[str, str], line: str
) -> None:
    finished = run("from worker.app import app; app.conf.broker_url", cwd=tmp_path, **environment)
    assert finished.returncode == 2
    assert finished.stderr.startswith(line)
    assert finished.stderr.count("\n") == 1


def test_importing_the_application_reads_no_settings(tmp_path: Path) -> None:
    assert run("import worker.app", cwd=tmp_path, DOCV_RATE="fast").returncode == 0


def test_events_and_remote_control_are_on_if_the_settings_enable_them(tmp_path: Path) -> None:
    names = ["worker_enable_remote_control", "worker_send_task_events"]
    finished = run(_PRINT_CONF % (names,), cwd=tmp_path, DOCV_REDIS_URL=ELSEWHERE, DOCV_CELERY_EVENTS="1")
    assert [json.loads(finished.stdout)[name] for name in names] == [True, True]


# -- the application of a publisher


def test_a_publishing_application_needs_a_redis() -> None:
    with pytest.raises(SettingsError, match="DOCV_REDIS_URL is not set"):
        make_publishing_app(Settings())


def test_each_publishing_application_has_its_own_broker_url() -> None:
    first, second = make_publishing_app(settings("redis://one")), make_publishing_app(settings("redis://two"))
    assert isinstance(first, Celery)
    assert (first.conf.broker_url, second.conf.broker_url) == ("redis://one", "redis://two")
