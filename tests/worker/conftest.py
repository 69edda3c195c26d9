"""Fixtures for the tests of ``worker``."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.config.settings import Settings


@pytest.fixture
def unused_address() -> Iterator[str]:
    """Return an address without a server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield "127.0.0.1:{1}".format(*taken.getsockname())


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=SecretStr(redis_url), archive_url=(tmp_path / "archive").as_uri(), api_key=SecretStr("key")
    )
