"""The command `serve`: run the HTTP server until SIGINT or SIGTERM, then shut down in order."""

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import click
import structlog
import uvloop
import yarl
from aiohttp import web

from scripts.console.exit_codes import OK
from scripts.serve.api.background_publisher import BackgroundPublisher
from scripts.serve.application import ServeClients, make_application
from scripts.serve.http.connection import HttpConnection
from scripts.serve.http.connection_limiter import ConnectionLimiter
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.path_prefix import without_prefix
from scripts.serve.metrics import HttpMetrics
from tasks.queueing.publisher import Publisher
from tasks.telemetry import tracing
from tasks.telemetry.log_events import settings_warning
from worker.app import make_publishing_app
from worker.clients.archive import check_archive, open_archive
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, open_redis
from worker.clients.redis_durability import check_fsync, check_persistence
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, SettingsError, load_settings
from worker.logs import configure_logs
from worker.tracing import open_tracer

_log = structlog.get_logger("docv.serve")
_REDIS_SECONDS = 2.0
_SHUTDOWN_SECONDS = 1.0
_REDIS_CONNECTIONS = 24
_NO_SECRETS = (
    "DOCV_WEBHOOK_SECRETS, DOCV_INTAKE_TOKENS, DOCV_RECORDS_TOKENS, DOCV_OPERATORS and DOCV_VIEWERS are not set, so no "
    "request could be authenticated: set one of them; `openssl rand -hex 32` prints a good secret"
)
# obstore's threads abort a process that exits immediately after their answer (0.12.1).
_CLOSE_SECONDS = 0.2


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option("--read-only", is_flag=True, help="Disable all actions on the operations page.")
def serve(host: str, port: int, *, read_only: bool) -> int:
    """Accept RiskOS events and evaluation IDs over HTTP, and serve the operations page, until stopped.

    Serves plain HTTP: put a reverse proxy with TLS in front of it. DOCV_WEBHOOK_SECRETS, DOCV_INTAKE_TOKENS,
    DOCV_RECORDS_TOKENS, DOCV_OPERATORS and DOCV_VIEWERS hold the accepted secrets; at least one must be set.
    docs/producers.md describes the API.
    """
    settings = load_settings()
    accounts = load_accounts(settings)
    of_webhooks = any(each.settings.webhook_secrets for each in accounts)
    if not any((of_webhooks, settings.intake_tokens, settings.records_tokens, settings.operators, settings.viewers)):
        raise SettingsError((_NO_SECRETS,))
    settings.need_redis_url()
    configure_logs(settings.log_level, accounts.secrets())
    tracing.set_tracer(open_tracer(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(settings, accounts, host, port, read_only=read_only))
    return OK


async def _until_signalled(settings: Settings, accounts: Accounts, host: str, port: int, *, read_only: bool) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_server(settings, accounts, host, port, read_only=read_only) as url:
        _log.info("serve.started", url=url)
        if not _is_loopback(host):
            _log.warning("serve.open_to_network", host=host, hint="put a proxy with TLS in front of it")
        for why in accounts.warnings:
            settings_warning(why)
        click.echo(f"docv-archive listens at {url}")
        await stop.wait()
    _log.info("serve.stopped")


@contextlib.asynccontextmanager
async def running_server(
    settings: Settings,
    accounts: Accounts,
    host: str,
    port: int,
    limits: HttpLimits | None = None,
    *,
    read_only: bool = False,
) -> AsyncIterator[str]:
    """Serve until the block ends; yield the URL.

    Raises:
        ServiceUnavailable: Redis or the archive does not answer, or the address cannot be bound.
    """
    limits, metrics = limits or HttpLimits(), HttpMetrics()
    async with _open_clients(settings) as opened:
        made = make_application(settings, accounts, opened, metrics, limits, read_only=read_only)
        runner = web.AppRunner(made, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            async with _listen(runner, host, port, limits, metrics, settings.path_prefix) as url:
                yield url
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def _open_clients(settings: Settings) -> AsyncIterator[ServeClients]:
    archive = open_archive(settings)
    async with open_redis(settings.need_redis_url(), _REDIS_CONNECTIONS, seconds=_REDIS_SECONDS, retries=1) as redis:
        await check_redis(redis)
        await check_persistence(redis, strict=settings.strict)
        await check_fsync(redis, strict=settings.strict)
        await check_archive(archive, settings)
        app = make_publishing_app(settings)
        with contextlib.closing(Publisher(app)) as events, contextlib.closing(Publisher(app)) as ids:
            yield ServeClients(redis, archive, BackgroundPublisher(events), BackgroundPublisher(ids))
    if not isinstance(archive, Path):
        await asyncio.sleep(_CLOSE_SECONDS)


@contextlib.asynccontextmanager
async def _listen(
    runner: web.AppRunner, host: str, port: int, limits: HttpLimits, metrics: HttpMetrics, prefix: str | None
) -> AsyncIterator[str]:
    loop, limiter = asyncio.get_running_loop(), ConnectionLimiter(limits)
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")
    if prefix:
        server.request_factory = without_prefix(prefix, server.request_factory)
    try:
        listener = await loop.create_server(
            lambda: HttpConnection(server, limiter, limits, metrics.count_closed, loop),
            host,
            port,
            backlog=limits.connections,
        )
    except OSError as error:
        raise ServiceUnavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    try:
        bound_host, bound_port = listener.sockets[0].getsockname()[:2]
        yield str(yarl.URL.build(scheme="http", host=bound_host, port=bound_port))
    finally:
        listener.close()
        await limiter.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
