"""Errors of the command line: one sentence with the next step, the right exit code, and never a traceback."""

import asyncio
import os
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner

from scripts.cli import main
from tests.command_line import load
from tests.commands import KEY, Shell
from tests.conftest import S3


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": "http://127.0.0.1:9"})


async def assert_refused(shell: Shell, *arguments: str, code: int, message: str) -> None:
    finished = await shell.run(*arguments, seconds=60)
    assert finished.code == code, finished.err
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert finished.err.count("\n") <= 4
    assert finished.out == ""
    assert KEY not in finished.err


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_a_help_text_without_hidden_options(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert load(command).help
    assert "with-parent" not in result.output


def test_the_help_lists_every_command_once_in_a_section() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    assert "Other commands" not in output
    assert sorted(re.findall(r"(?m)^  ([a-z-]+)  +[A-Z]", output.partition("Archive:")[2])) == sorted(main.commands)


async def test_a_missing_api_key_is_reported_before_anything_is_started(shell: Shell) -> None:
    del shell.settings["DOCV_API_KEY"]
    await assert_refused(shell, "run", str(uuid4()), code=2, message="DOCV_API_KEY is not set")
    shell.settings["DOCV_REDIS_URL"] = "redis://127.0.0.1:1/0"
    await assert_refused(shell, "worker", code=2, message="DOCV_API_KEY is not set")
    assert not (shell.folder / ".docv-archive").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DOCV_RAET", "5", "DOCV_RAET is not a setting of this version; did you mean DOCV_RATE?"),
        ("DOCV_RATE", "fast", "DOCV_RATE: "),
        ("DOCV_RATE", "0", "DOCV_RATE: "),
        ("DOCV_ARCHIVE_URL", "archive", "DOCV_ARCHIVE_URL: expected s3://bucket/prefix or file:///path"),
        ("DOCV_RISKOS_URL", "http://riskos.example", "DOCV_RISKOS_URL: plain http"),
        ("DOCV_ENVIRONMENT", "prod", "DOCV_ENVIRONMENT: "),
        ("DOCV_TAGS", "a;b", "DOCV_TAGS: "),
        ("DOCV_REDIS_URL", "localhost", "DOCV_REDIS_URL: "),
    ],
)
async def test_an_invalid_setting_is_reported_with_its_name(shell: Shell, name: str, value: str, message: str) -> None:
    shell.settings[name] = value
    await assert_refused(shell, "run", str(uuid4()), code=2, message=message)


@pytest.mark.parametrize("command", ["run", "enqueue", "worker", "status"])
async def test_a_redis_that_does_not_answer_is_reported(shell: Shell, command: str) -> None:
    shell.settings["DOCV_REDIS_URL"] = "redis://:canary-secret@127.0.0.1:1/0"
    arguments = [command, str(uuid4())] if command in {"run", "enqueue"} else [command]
    await assert_refused(shell, *arguments, code=3, message="Redis does not answer")


@pytest.mark.parametrize("command", ["enqueue", "worker"])
async def test_enqueue_and_worker_report_a_missing_redis_url(shell: Shell, command: str) -> None:
    arguments = [command, str(uuid4())] if command == "enqueue" else [command]
    await assert_refused(shell, *arguments, code=2, message="DOCV_REDIS_URL is not set")


async def test_a_bucket_that_does_not_exist_is_reported(shell: Shell, s3: S3) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": "s3://no-such-bucket/x", "DOCV_S3_ENDPOINT": s3.endpoint}
    await assert_refused(shell, "run", str(uuid4()), code=3, message="s3://no-such-bucket/x: there is no such bucket")


async def test_a_bucket_that_does_not_answer_is_reported(shell: Shell, s3: S3) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": f"s3://{s3.bucket}", "DOCV_S3_ENDPOINT": "http://127.0.0.1:1"}
    await assert_refused(shell, "run", str(uuid4()), code=3, message="S3 does not answer (the connection is refused)")


async def test_missing_aws_credentials_are_reported(shell: Shell) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": "s3://anywhere", "AWS_EC2_METADATA_DISABLED": "true"}
    await assert_refused(shell, "run", str(uuid4()), code=2, message="no AWS credentials found")


async def test_an_archive_folder_that_cannot_be_created_is_reported(shell: Shell) -> None:
    (shell.folder / "archive").write_text("a file")
    await assert_refused(shell, "run", str(uuid4()), code=3, message="the folder of the archive cannot be created")


@pytest.mark.parametrize("source", ["no-such-file.txt", "0b54a4d4", "x" * 5_000])
async def test_a_source_that_is_neither_file_nor_id_is_reported(shell: Shell, source: str) -> None:
    finished = await shell.run("run", source)
    assert finished.code == 2
    assert "is neither a file nor an evaluation ID" in finished.err
    assert len(finished.err) < 500


async def test_a_run_without_ids_is_refused(shell: Shell) -> None:
    (shell.folder / "ids.txt").write_text("\n\n")
    await assert_refused(shell, "run", "ids.txt", code=2, message="there is no evaluation ID in it")


async def test_status_is_refused_when_nothing_has_been_run(shell: Shell) -> None:
    await assert_refused(shell, "status", code=2, message="nothing has been run here")
    assert not list(shell.folder.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("simulate", "--ids", "3"), ("audit", "ids.txt"), ("audit", "--json", "ids.txt"), ("verify", "--grace", "0")],
)
async def test_a_command_ends_quietly_when_its_output_pipe_is_closed(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    # The output is long enough for the command to write some of it before it ends.
    (tmp_path / "ids.txt").write_text("".join(f"{uuid4()}\n" for _ in range(2_000)))
    (tmp_path / "archive").mkdir()
    for number in range(200):
        (tmp_path / "archive" / f"{number}{'x' * 200}").touch()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed_pipe:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.cli", *arguments),
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=closed_pipe,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    lines = [line for line in err.decode().splitlines() if '"logger": "docv.access"' not in line]
    assert (process.returncode, lines) == (1, [])
