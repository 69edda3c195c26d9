"""The bytes of a source."""

import contextlib
import gzip
import io
import os
import stat
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.ids.errors import BadSource
from scripts.ids.stream import HEAD, open_stream, seekable_copy

CONTENT = os.urandom(3 * HEAD)


def _read(source: Path | str) -> bytes:
    with open_stream(str(source), None) as stream:
        assert CONTENT.startswith(stream.head)
        return stream.file.read()


@pytest.fixture
def piped(tmp_path: Path) -> Callable[[bytes], Path]:
    def pipe(content: bytes) -> Path:
        path = tmp_path / "pipe"
        os.mkfifo(path)

        def feed() -> None:
            with contextlib.suppress(BrokenPipeError), path.open("wb") as file:
                file.write(content)

        threading.Thread(target=feed).start()
        return path

    return pipe


@pytest.mark.parametrize("size", [0, 1, HEAD, HEAD + 1, 3 * HEAD])
def test_a_stream_is_complete_after_its_head_was_read(tmp_path: Path, size: int) -> None:
    (tmp_path / "list").write_bytes(CONTENT[:size])
    assert _read(tmp_path / "list") == CONTENT[:size]


def test_gzip_with_several_members_is_unpacked_whatever_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]))
    assert _read(tmp_path / "list.csv") == CONTENT


def test_a_plain_file_is_read_unchanged_when_its_name_ends_in_gz(tmp_path: Path) -> None:
    (tmp_path / "list.gz").write_bytes(CONTENT[:1000])
    assert _read(tmp_path / "list.gz") == CONTENT[:1000]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read(piped: Callable[[bytes], Path], pack: Callable[[bytes], bytes]) -> None:
    assert _read(piped(pack(CONTENT))) == CONTENT


def test_standard_input_is_read_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(CONTENT))
    monkeypatch.setattr("sys.stdin", stdin)
    assert _read("-") == CONTENT
    assert not stdin.closed


@pytest.mark.parametrize("cut", [15, 1000, -1])
def test_a_truncated_gzip_file_raises_bad_source(tmp_path: Path, cut: int) -> None:
    (tmp_path / "list.gz").write_bytes(gzip.compress(CONTENT)[:cut])
    with pytest.raises(BadSource, match="truncated, so its last IDs are missing"):
        _read(tmp_path / "list.gz")


@pytest.mark.parametrize("at", [2, 10, -8])
def test_a_damaged_gzip_file_raises_bad_source(tmp_path: Path, at: int) -> None:
    packed = bytearray(gzip.compress(CONTENT[:100_000]))
    packed[at] ^= 0xFF
    (tmp_path / "list.gz").write_bytes(packed)
    with pytest.raises(BadSource, match=r"the gzip file is (damaged|cut short)"):
        _read(tmp_path / "list.gz")


def test_a_gzip_bomb_is_unpacked_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(200 * HEAD), compresslevel=1))
    tracemalloc.start()
    try:
        with open_stream(str(tmp_path / "bomb.gz"), None) as stream:
            assert sum(map(len, iter(lambda: stream.file.read(HEAD), b""))) == 200 * HEAD
        assert tracemalloc.get_traced_memory()[1] < 16 * HEAD
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("source", "why"), [("no-such-file", "No such file"), (".", "directory"), ("a\0b", "not a valid file name")]
)
def test_a_source_that_cannot_be_opened_raises_bad_source(source: str, why: str) -> None:
    with pytest.raises(BadSource, match=why):
        _read(source)


def test_a_file_without_permission_raises_bad_source(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("x")
    (tmp_path / "list").chmod(0)
    if os.access(tmp_path / "list", os.R_OK):
        pytest.skip("this user can read every file")
    with pytest.raises(BadSource, match="it cannot be read: Permission denied"):
        _read(tmp_path / "list")


def test_a_seekable_copy_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with seekable_copy(io.BytesIO(CONTENT), tmp_path) as copy:
        assert stat.S_IMODE(os.fstat(copy.fileno()).st_mode) == 0o600
        copy.seek(HEAD)
        assert copy.read() == CONTENT[HEAD:]
