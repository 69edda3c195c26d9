"""With every client, each page of an S3 listing is a span like those of other requests."""

from collections.abc import AsyncIterator, Callable, Sized
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from scripts.verify.s3_objects import open_s3_lister
from tasks.errors import StorageError
from tasks.storage import bucket as module
from tasks.storage.bucket import S3Bucket
from tasks.telemetry import tracing
from tests.commands import Shell
from tests.conftest import S3
from tests.spans import attributes_of, get_parent_id, named, spans  # noqa: F401  # a fixture
from worker.clients.archive import open_archive
from worker.config.settings import Settings

_PREFIX = "docv"
_EVAL_ID = "0b54a4d4-9f0a-4c55-8c5e-3f6a1f0f7a11"
Listing = Callable[[Settings], AsyncIterator[Sized]]


async def list_with_obstore(settings: Settings) -> AsyncIterator[Sized]:
    store = open_archive(settings)
    assert not isinstance(store, Path)
    async for page in S3Bucket(store).list_objects("sandbox/"):
        yield page


async def list_with_pyreqwest(settings: Settings) -> AsyncIterator[Sized]:
    async with open_s3_lister(settings) as lister:
        async for page in lister.walk("sandbox/"):
            yield page


def boto_archive(settings: Settings) -> S3Archive:
    archive = open_s3_archive(settings)
    assert archive
    return archive


async def list_with_boto3(settings: Settings) -> AsyncIterator[Sized]:
    for page in boto_archive(settings).list_pages("list_objects_v2", "sandbox/"):
        yield page["Contents"]


async def list_versions_with_boto3(settings: Settings) -> AsyncIterator[Sized]:
    for page in boto_archive(settings).list_pages("list_object_versions", "sandbox/"):
        yield page["Versions"]


def settings_of(s3: S3, bucket: str) -> Settings:
    return Settings(archive_url=f"s3://{bucket}/{_PREFIX}", s3_endpoint=s3.endpoint)


@pytest.fixture
def archive(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three objects of an evaluation, in pages of two."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    monkeypatch.setattr(module, "_LISTED", 2)
    for number in range(3):
        s3.client.put_object(Bucket=s3.bucket, Key=f"{_PREFIX}/sandbox/{_EVAL_ID}/{number}", Body=b"x")
    return settings_of(s3, s3.bucket)


@pytest.mark.parametrize(
    ("listing", "operation"),
    [
        (list_with_obstore, "ListObjectsV2"),
        (list_with_pyreqwest, "ListObjectsV2"),
        (list_with_boto3, "ListObjectsV2"),
        (list_versions_with_boto3, "ListObjectVersions"),
    ],
)
async def test_each_page_of_a_listing_is_a_span_without_a_key(
    archive: Settings,
    spans: InMemorySpanExporter,  # noqa: F811
    listing: Listing,
    operation: str,
) -> None:
    pages = []
    async for page in listing(archive):
        pages.append(len(page))
        with tracing.span("work"):
            pass
    assert sum(pages) == 3
    finished = spans.get_finished_spans()
    requests = [span for span in finished if span.name == f"S3.{operation}"]
    assert len(requests) == len(pages)
    assert {span.kind for span in requests} == {SpanKind.CLIENT}
    assert [attributes_of(span) for span in requests] == [
        {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": operation}
    ] * len(pages)
    assert {span.status.status_code for span in finished} == {StatusCode.UNSET}
    # The work on a page is not a part of the request for it.
    assert {get_parent_id(span) for span in finished if span.name == "work"} == {None}
    assert _EVAL_ID not in "".join(span.to_json() for span in finished)


async def test_a_listing_without_objects_is_one_span(archive: Settings, spans: InMemorySpanExporter) -> None:  # noqa: F811
    store = open_archive(archive)
    assert not isinstance(store, Path)
    assert [page async for page in S3Bucket(store).list_objects("production/")] == []
    named(spans, "S3.ListObjectsV2")


@pytest.mark.parametrize("listing", [list_with_obstore, list_with_pyreqwest])
async def test_a_listing_that_fails_is_a_failed_span(
    s3: S3,
    spans: InMemorySpanExporter,  # noqa: F811
    listing: Listing,
) -> None:
    with pytest.raises(StorageError):
        _ = [page async for page in listing(settings_of(s3, "there-is-no-such-bucket"))]
    assert named(spans, "S3.ListObjectsV2").status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        (("verify",), b"S3.ListObjectsV2"),
        (("audit", "-"), b"S3.GetObject"),
        (("erase", "--reason=x", "--dry-run", _EVAL_ID), b"S3.ListObjectVersions"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_commands_that_list_and_read_the_archive_send_their_spans(
    tmp_path: Path, archive: Settings, arguments: tuple[str, ...], operation: bytes
) -> None:
    received: list[bytes] = []

    async def collect(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    collector = web.Application()
    collector.router.add_post("/v1/traces", collect)
    async with TestServer(collector) as server:
        shell = Shell(
            tmp_path,
            {
                "DOCV_ARCHIVE_URL": archive.archive_url,
                "DOCV_S3_ENDPOINT": archive.s3_endpoint or "",
                "DOCV_TRACING": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": str(server.make_url("")),
                "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            },
        )
        finished = await shell.run(*arguments, given=_EVAL_ID)
    assert operation in b"".join(received), finished.err
    assert _EVAL_ID.encode() not in b"".join(received)
