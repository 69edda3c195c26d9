"""Lists are downloaded from S3, and each failure has its own error."""

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from scripts.ids.errors import BadSource
from scripts.ids.s3 import download
from tests.conftest import S3
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import SettingsError


class _StatusHandler(BaseHTTPRequestHandler):
    """Answer with the status in the first part of the path, which is the bucket."""

    def do_HEAD(self) -> None:
        self.send_response(int(self.path[1:4]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def status_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _StatusHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port_url() -> Iterator[str]:
    """URL of a port that nothing listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_download_writes_the_whole_object_in_parts(s3: S3, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4 * 10 * 1024
    s3.client.put_object(Bucket=s3.bucket, Key="lists/2026 q3.csv", Body=content)
    file = io.BytesIO()
    download(f"s3://{s3.bucket}/lists/2026 q3.csv", s3.endpoint, file, tmp_path)
    assert file.read() == content


def test_download_raises_bad_source_when_the_bucket_or_object_is_missing(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="there is no such object in the bucket"):
        download(f"s3://{s3.bucket}/ids.csv", s3.endpoint, io.BytesIO(), tmp_path)
    with pytest.raises(BadSource, match="there is no such bucket"):
        download("s3://no-such-bucket/ids.csv", s3.endpoint, io.BytesIO(), tmp_path)


@pytest.mark.parametrize("url", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://no bucket/key"])
def test_download_raises_bad_source_when_the_url_names_no_object(s3: S3, url: str) -> None:
    with pytest.raises(BadSource, match="expected s3://bucket/key"):
        download(url, s3.endpoint, io.BytesIO(), None)


def test_download_names_the_permission_when_access_is_denied(s3: S3, status_server: str) -> None:
    with pytest.raises(BadSource, match=r"access is denied \(403\); these credentials need s3:GetObject"):
        download("s3://403/ids.csv", status_server, io.BytesIO(), None)


def test_download_raises_service_unavailable_when_s3_fails(s3: S3, status_server: str) -> None:
    with pytest.raises(ServiceUnavailable, match="S3 answers 501; check DOCV_S3_ENDPOINT"):
        download("s3://501/ids.csv", status_server, io.BytesIO(), None)


def test_download_raises_service_unavailable_when_s3_does_not_answer(s3: S3, closed_port_url: str) -> None:
    with pytest.raises(
        ServiceUnavailable, match=r"127\.0\.0\.1 does not answer .*; check DOCV_S3_ENDPOINT and the network"
    ):
        download("s3://bucket/ids.csv", closed_port_url, io.BytesIO(), None)


def test_download_raises_settings_error_without_credentials(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="no AWS credentials found"):
        download("s3://bucket/ids.csv", s3.endpoint, io.BytesIO(), None)


def test_download_raises_service_unavailable_when_the_disk_is_full(s3: S3, tmp_path: Path) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="ids.csv", Body=b"in one piece")
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(ServiceUnavailable, match="disk of DOCV_STATE_DIR is full"),
    ):
        download(f"s3://{s3.bucket}/ids.csv", s3.endpoint, full, tmp_path)
