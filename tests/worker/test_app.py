"""What a worker really runs with is asked of Celery in a process of its own: an application reads its settings once."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS
from kombu import Connection
from kombu.transport.redis import Channel
from pydantic import SecretStr

from worker.app import configuration, publisher_transport, publishing_app, transport_url, worker_transport
from worker.settings import Settings, SettingsError

ELSEWHERE = "redis://queue.example:6379/3"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the numbers of TCP options are Linux's")

_TELL = """
import json
from worker.app import app
names = %r
print(json.dumps({name: app.conf[name] for name in names} | {
    "queues": {queue.name: queue.routing_key for queue in app.conf.task_queues},
    "main": app.main,
    "include": list(app.conf.include),
}))
"""

# CELERY.md, "the wiring that follows".
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
    "worker_concurrency": 7,
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
    code = _TELL % ([*WIRING, "broker_transport_options"],)
    told = run(code, cwd=tmp_path_factory.mktemp("app"), DOCV_REDIS_URL=ELSEWHERE, DOCV_CONCURRENCY="7")
    assert told.returncode == 0, told.stderr
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def settings(redis_url: str = ELSEWHERE) -> Settings:
    return Settings(redis_url=SecretStr(redis_url))


def connection(redis_url: str) -> Connection:
    return publishing_app(settings(redis_url)).connection_for_write()


# -- the worker's


@pytest.mark.parametrize("name", WIRING)
def test_a_worker_s_application_is_wired_as_it_was_tried(worker_conf: dict[str, Any], name: str) -> None:
    assert worker_conf[name] == WIRING[name]


def test_a_worker_serves_two_queues_and_finds_the_task_by_name(worker_conf: dict[str, Any]) -> None:
    assert worker_conf["queues"] == {"live": "live", "backfill": "backfill"}
    assert (worker_conf["main"], worker_conf["include"]) == ("docv-archive", ["tasks.archive"])


@LINUX
def test_a_worker_talks_to_redis_as_it_was_tried(worker_conf: dict[str, Any]) -> None:
    assert worker_conf["broker_transport_options"] == {
        "global_keyprefix": "docv:",
        "visibility_timeout": 3600,
        "unacked_restore_interval": 15,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "socket_keepalive_options": {"4": 30, "5": 10, "6": 3, "18": 60_000},
    }


def test_a_worker_has_no_socket_timeout_that_would_make_it_deaf() -> None:
    assert "socket_timeout" not in worker_transport()


def test_celery_knows_every_name_of_the_configuration() -> None:
    assert configuration(settings()).keys() <= set(SETTING_KEYS)


@pytest.mark.parametrize("option", sorted(worker_transport() | publisher_transport()))
def test_kombu_reads_every_option_of_the_transport(option: str) -> None:
    connecting = {"max_retries", "interval_start", "interval_step", "interval_max", "connect_retries_timeout"}
    assert option in {*Channel.from_transport_options, *connecting}


def test_the_options_arrive_at_the_queue(redis_url: str) -> None:
    app = publishing_app(settings(redis_url))
    with app.connection_for_read() as worker:
        channel = worker.default_channel
        assert channel.visibility_timeout == 3600
        assert (channel.unacked_restore_interval, channel.unacked_restore_throttle) == (15, 1)
        assert channel.unacked_mutex_expire == 30
        assert channel.global_keyprefix == "docv:"
        assert channel.socket_timeout is None
    with app.connection_for_write(transport_options=publisher_transport()) as publisher:
        channel = publisher.default_channel
        assert (channel.socket_timeout, channel.socket_connect_timeout) == (2, 2)
        assert channel.global_keyprefix == "docv:"


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, "DOCV_REDIS_URL is not set"),
        ({"DOCV_REDIS_URL": ELSEWHERE, "DOCV_RATE": "fast"}, "DOCV_RATE: "),
        ({"DOCV_REDIS_URL": ELSEWHERE, "DOCV_RAET": "4"}, "DOCV_RAET is no setting"),
    ],
)
def test_who_starts_celery_with_impossible_settings_reads_one_line(
    tmp_path: Path, environment: dict[str, str], line: str
) -> None:
    told = run("from worker.app import app; app.conf.broker_url", cwd=tmp_path, **environment)
    assert told.returncode == 2
    assert told.stderr.startswith(line)
    assert told.stderr.count("\n") == 1


def test_importing_the_application_reads_no_settings(tmp_path: Path) -> None:
    assert run("import worker.app", cwd=tmp_path, DOCV_RATE="fast").returncode == 0


# -- the publisher's


def test_a_publishing_application_needs_a_redis() -> None:
    with pytest.raises(SettingsError, match="DOCV_REDIS_URL is not set"):
        publishing_app(Settings())


def test_a_publishing_application_is_one_of_its_own() -> None:
    first, second = publishing_app(settings("redis://one")), publishing_app(settings("redis://two"))
    assert isinstance(first, Celery)
    assert (first.conf.broker_url, second.conf.broker_url) == ("redis://one", "redis://two")


def test_publishers_give_up_soon() -> None:
    transport = publisher_transport()
    assert (transport["socket_timeout"], transport["socket_connect_timeout"]) == (2, 2)
    assert transport["global_keyprefix"] == worker_transport()["global_keyprefix"]
    assert transport["visibility_timeout"] == worker_transport()["visibility_timeout"]


# -- one Redis, two clients


@pytest.mark.parametrize("url", ["redis://host:6379/0", "redis://:word@host/2", "rediss://host:6380/1"])
def test_the_address_of_a_host_is_the_same_for_the_queue(url: str) -> None:
    found = connection(url)
    assert found.hostname == "host"
    assert found.password == ("word" if "word" in url else None)
    assert str(found.virtual_host) == url[-1]


def test_a_socket_is_written_as_kombu_writes_it() -> None:
    assert transport_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock"
    assert transport_url("redis://unix:6379/0") == "redis://unix:6379/0"


@pytest.mark.parametrize("url", ["rediss://host:6380/1", "rediss://:word@host:6380/1"])
def test_the_queue_checks_the_server_s_certificate_as_the_ledger_does(url: str) -> None:
    with connection(url) as found:
        assert found.ssl
        assert found.ssl["ssl_cert_reqs"] in {ssl.CERT_REQUIRED, "required"}


def test_the_queue_trusts_the_authority_that_the_ledger_trusts() -> None:
    with connection("rediss://host:6380/1?ssl_ca_certs=/etc/ours.pem") as found:
        assert found.ssl == {"ssl_ca_certs": "/etc/ours.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_the_queue_checks_no_certificate_where_the_address_says_so() -> None:
    with connection("rediss://host:6380/1?ssl_cert_reqs=none") as found:
        assert found.ssl == {"ssl_cert_reqs": ssl.CERT_NONE}


@pytest.mark.parametrize(
    "url",
    ["unix://user:word@/run/redis.sock", "unix://user:word@/run/redis.sock?db=2"],
    ids=["plain", "with a database"],
)
def test_a_socket_s_password_is_not_lost_on_the_way_to_the_queue(url: str) -> None:
    assert transport_url(url).startswith("redis+socket://user:word@/run/redis.sock")
