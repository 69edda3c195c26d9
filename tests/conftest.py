"""Fixtures that tests of several packages share: real services on free ports, started for the tests."""

import functools
import importlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import hypothesis
import pytest
from botocore.loaders import JSONFileLoader, Loader
from fakeredis import FakeAsyncRedis, FakeServer
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from werkzeug.serving import make_server

from tests.counting import MetricGrowth
from tests.rabbitmq import RABBITMQ_PROGRAMS, rabbitmq_url  # noqa: F401  # the fixture is for all tests
from worker.clients.embedded_redis import embedded_redis
from worker.clients.redis import open_redis

pytest_plugins = ["tests.programs"]

# Test machines are slow at times. That is not a fault of the code.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

_AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def pytest_configure(config: pytest.Config) -> None:
    """Let commands receive SIGINT: a shell lets background jobs ignore it, and their children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for the long form of the fault tests, and for tests of S3 on another server."""
    parser.addoption("--faults", choices=("short", "long"), default="short", help="how much the fault tests break")
    parser.addoption("--s3", metavar="URL", help="run only the tests of S3, on this server instead of moto's")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of RabbitMQ with the programs that they need; with ``--s3`` keep the tests of S3 only."""
    if config.getoption("--s3"):
        items[:] = [item for item in items if "s3_endpoint" in getattr(item, "fixturenames", ())]
    for item in items:
        if isinstance(item, pytest.Function) and "rabbitmq_url" in item.fixturenames:
            item.add_marker(pytest.mark.needs(*RABBITMQ_PROGRAMS))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module marked ``both_redises`` on fakeredis and on Redis, the exceptions on Redis only.

    The exceptions are tests marked ``real_redis_only``, and tests that take ``redis_url``: fakeredis has no URL.
    """
    if "redis" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_redises"):
        real_only = metafunc.definition.get_closest_marker("real_redis_only") or "redis_url" in metafunc.fixturenames
        metafunc.parametrize("redis", ["redis"] if real_only else ["fakeredis", "redis"], indirect=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the results of the fault tests; under xdist, only this file is loaded in the process that prints."""
    reports = [each for some in terminalreporter.stats.values() for each in some if hasattr(each, "user_properties")]
    lines = [str(value) for each in reports for name, value in each.user_properties if name == "figures"]
    if lines and config.getoption("--faults") == "long":
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(dict.fromkeys(lines)))


@pytest.fixture(autouse=True)
def _hide_developer_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings, the certificates and any .env file of the developer from the test."""
    for name in os.environ:
        if name.upper().startswith(("DOCV_", "AWS_", "SSL_CERT_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _cache_botocore_files() -> Iterator[None]:
    """Read a megabyte about S3, and the names of 450 services, only once; either takes longer than most tests."""
    read = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    find_services = functools.cache(functools.partial(Loader.list_available_services, Loader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        patch.setattr(Loader, "list_available_services", lambda _, type_name: find_services(type_name))
        yield


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, BlockingRedis]]:
    """URL and client of a real Redis, started for this process's tests."""
    with embedded_redis(tmp_path_factory.mktemp("redis")) as embedded, BlockingRedis.from_url(embedded.url) as client:
        yield embedded.url, client


@pytest.fixture
def redis_url(_redis_server: tuple[str, BlockingRedis]) -> str:
    """URL of a real Redis that is empty."""
    url, client = _redis_server
    client.flushall()
    return url


@pytest.fixture
async def redis(request: pytest.FixtureRequest) -> AsyncIterator["Redis"]:
    """A client of an empty Redis, or of an empty fakeredis if the test's ID says so (see ``pytest_generate_tests``).

    fakeredis 2.40 has no INFO and no WAIT, ignores ``maxmemory``, advances TIME during a script, and its cjson writes
    an empty table as ``[]`` where that of Redis writes ``{}``.
    """
    if getattr(request, "param", "redis") == "fakeredis":
        async with FakeAsyncRedis(server=FakeServer(), decode_responses=True) as client:
            yield client
    else:
        # Not an argument of the fixture: tests on fakeredis start no server.
        async with open_redis(request.getfixturevalue("redis_url")) as client:
            await client.ping()  # connect, so that no test pays for it
            yield client


@dataclass(frozen=True)
class S3:
    """moto's server and a bucket in it.

    Attributes:
        endpoint: URL of the server.
        bucket: name of an empty bucket.
        client: a client of boto3, for direct access.
    """

    endpoint: str
    bucket: str
    client: Any


class Dispatcher(DomainDispatcherApplication):
    """moto's dispatcher, which searches all of its backends for each request; this one searches once for each host."""

    get_backend_for_host = functools.cache(DomainDispatcherApplication.get_backend_for_host)


@pytest.fixture(scope="session")
def s3_endpoint(pytestconfig: pytest.Config) -> Iterator[str]:
    """URL of moto's S3, a real HTTP server, started for this process's tests; or of the S3 that ``--s3`` names."""
    if url := pytestconfig.getoption("--s3"):
        yield str(url)
        return
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request is noise
    # Imported here: Python 3.11's compiler has trouble if the server's thread imports them at the first request.
    importlib.import_module("moto.s3.responses")
    importlib.import_module("moto.s3.urls")
    models = importlib.import_module("moto.s3.models")
    application = Dispatcher(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        # Otherwise moto keeps every object that it ever stored or answered with, 23 GB after 20 minutes of requests.
        for model in (models.FakeKey, models.FakeAcl, models.FakeGrant, models.FakeGrantee):
            patch.setattr(model, "instances_tracked", deque(maxlen=0))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An empty bucket for this test only."""
    for name, value in _AWS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    bucket = f"archive-{uuid4()}"
    client.create_bucket(Bucket=bucket)
    return S3(s3_endpoint, bucket, client)


@pytest.fixture
def counted() -> MetricGrowth:
    """The growth of the metrics of this process since the test began."""
    return MetricGrowth()


@pytest.fixture
def eval_id() -> str:
    """An ID that no other test uses."""
    return str(uuid4())
