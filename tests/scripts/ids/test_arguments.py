"""Arguments of a command line are read as IDs or files, and invalid ones are reported safely."""

import io
from pathlib import Path
from uuid import UUID

import click
import pytest

from scripts.ids.arguments import read_ids
from scripts.ids.errors import BadSource
from tests.conftest import S3
from worker.config.settings import Settings

ONE, TWO = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11"


def test_arguments_may_be_ids_and_files_of_any_format(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"{ONE}\n\n{TWO}\n")
    (tmp_path / "ids.csv").write_text(f"name;eval_id\nx;{TWO}\n")
    assert read_ids([str(tmp_path / "ids.txt")]).eval_ids == (ONE, TWO)
    assert read_ids([TWO, ONE]).eval_ids == (TWO, ONE)
    assert read_ids([str(tmp_path / "ids.csv"), ONE]).eval_ids == (TWO, ONE)


def test_a_windows_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf" + f"{ONE}\r\n{TWO}".encode())
    assert read_ids([str(tmp_path / "ids.txt")]).eval_ids == (ONE, TWO)


def test_a_repeated_id_is_counted_once_in_either_case(capsys: pytest.CaptureFixture[str]) -> None:
    ids = read_ids([ONE, ONE.upper(), TWO])
    assert (ids.eval_ids, ids.repeated) == ((ONE, TWO), 1)
    assert "1 given more than once" in capsys.readouterr().err


def test_read_ids_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{ONE}\nbad\n".encode())))
    assert read_ids(["-"]).eval_ids == (ONE,)
    assert "standard input, line 2: 'bad' is not a valid evaluation ID" in capsys.readouterr().err


def test_read_ids_reads_an_object_in_s3(s3: S3, tmp_path: Path) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="ids.txt", Body=ONE.encode())
    settings = Settings(state_dir=tmp_path / "state", s3_endpoint=s3.endpoint)
    assert read_ids([f"s3://{s3.bucket}/ids.txt"], settings).eval_ids == (ONE,)


@pytest.mark.parametrize(
    "bad", ["{" + ONE, f"urn:uuid:{ONE}", f"\u00a0{ONE}", UUID(ONE).hex, "\x1b[31mred", "x" * 100_000]
)
def test_a_bad_id_is_reported_with_its_line_and_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    (tmp_path / "ids.txt").write_text(f"{ONE}\n{bad}\n{TWO}\n")
    ids = read_ids([str(tmp_path / "ids.txt")])
    output = capsys.readouterr().err
    assert ids.eval_ids == (ONE, TWO)
    assert "ids.txt, line 2: " in output
    assert len(output) < 500
    assert not set(output) & {"\x00", "\x1b"}


def test_blanks_around_an_id_are_accepted_in_a_file_and_refused_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids.txt").write_text(f" {ONE}\t\n")
    assert read_ids([str(tmp_path / "ids.txt")]).bad == ()
    assert read_ids([ONE, f"{TWO} "]).eval_ids == (ONE,)
    assert "it has spaces around it" in capsys.readouterr().err


def test_only_the_first_bad_ids_are_reported_when_there_are_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids.txt").write_text("bad\n" * 1000 + ONE)
    assert len(read_ids([str(tmp_path / "ids.txt")]).bad) == 1000
    output = capsys.readouterr().err
    assert output.count("line") == 20
    assert "... and 980 more" in output
    assert "1,000 refused; the other 1 continue" in output


def test_a_binary_file_raises_bad_source(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(bytes(range(256)) * 1000)
    with pytest.raises(BadSource, match=r"picture\.jpg: it is binary"):
        read_ids([str(tmp_path / "picture.jpg")])


def test_read_ids_raises_usage_error_only_when_all_sources_are_empty(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("")
    with pytest.raises(click.UsageError, match="there is no evaluation ID in it"):
        read_ids([str(tmp_path / "ids.txt")])
    assert read_ids([str(tmp_path / "ids.txt"), ONE]).eval_ids == (ONE,)


@pytest.mark.parametrize("source", ["no-such-file.txt", "/", "a\x00b", "x" * 10_000])
def test_an_argument_that_is_neither_file_nor_id_raises_usage_error(source: str) -> None:
    with pytest.raises(click.UsageError, match="is neither a file nor an evaluation ID"):
        read_ids([source])
