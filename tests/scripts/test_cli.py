"""What the command says when something is wrong: one sentence, what to do, the right code, never a traceback."""

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


async def refused(shell: Shell, *arguments: str, code: int, said: str) -> None:
    finished = await shell.run(*arguments, seconds=60)
    assert finished.code == code, finished.err
    assert said in finished.err
    assert "Traceback" not in finished.err
    assert finished.err.count("\n") <= 4
    assert finished.out == ""
    assert KEY not in finished.err


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_every_verb_has_help_that_says_what_it_is_for(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0
    assert load(verb).help
    assert "with-parent" not in result.output


def test_the_help_lists_every_command_in_a_section_and_each_once() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    assert "Other commands" not in said
    assert sorted(re.findall(r"(?m)^  ([a-z-]+)  +[A-Z]", said.partition("Archive:")[2])) == sorted(main.commands)


async def test_a_missing_key_is_told_before_anything_is_started(shell: Shell) -> None:
    del shell.settings["DOCV_API_KEY"]
    await refused(shell, "run", str(uuid4()), code=2, said="DOCV_API_KEY is not set")
    shell.settings["DOCV_REDIS_URL"] = "redis://127.0.0.1:1/0"
    await refused(shell, "worker", code=2, said="DOCV_API_KEY is not set")
    assert not (shell.folder / ".docv-archive").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
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
async def test_an_impossible_setting_is_one_line(shell: Shell, name: str, value: str, said: str) -> None:
    shell.settings[name] = value
    await refused(shell, "run", str(uuid4()), code=2, said=said)


@pytest.mark.parametrize("verb", ["run", "enqueue", "worker", "status"])
async def test_a_redis_that_does_not_answer_is_told(shell: Shell, verb: str) -> None:
    shell.settings["DOCV_REDIS_URL"] = "redis://:canary-secret@127.0.0.1:1/0"
    arguments = [verb, str(uuid4())] if verb in {"run", "enqueue"} else [verb]
    await refused(shell, *arguments, code=3, said="Redis does not answer")


@pytest.mark.parametrize("verb", ["enqueue", "worker"])
async def test_a_producer_or_worker_without_a_redis_is_told_to_name_one(shell: Shell, verb: str) -> None:
    arguments = [verb, str(uuid4())] if verb == "enqueue" else [verb]
    await refused(shell, *arguments, code=2, said="DOCV_REDIS_URL is not set")


async def test_a_bucket_that_does_not_exist_is_told(shell: Shell, s3: S3) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": "s3://no-such-bucket/x", "DOCV_S3_ENDPOINT": s3.endpoint}
    await refused(shell, "run", str(uuid4()), code=3, said="s3://no-such-bucket/x: there is no such bucket")


async def test_a_bucket_that_does_not_answer_is_told(shell: Shell, s3: S3) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": f"s3://{s3.bucket}", "DOCV_S3_ENDPOINT": "http://127.0.0.1:1"}
    await refused(shell, "run", str(uuid4()), code=3, said="S3 does not answer (the connection is refused)")


async def test_missing_credentials_are_told(shell: Shell) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": "s3://anywhere", "AWS_EC2_METADATA_DISABLED": "true"}
    await refused(shell, "run", str(uuid4()), code=2, said="no AWS credentials found")


async def test_a_folder_that_cannot_be_made_is_told(shell: Shell) -> None:
    (shell.folder / "archive").write_text("a file")
    await refused(shell, "run", str(uuid4()), code=3, said="the folder of the archive cannot be created")


@pytest.mark.parametrize("source", ["no-such-file.txt", "0b54a4d4", "x" * 5_000])
async def test_a_source_that_is_neither_file_nor_id_is_told(shell: Shell, source: str) -> None:
    finished = await shell.run("run", source)
    assert finished.code == 2
    assert "is neither a file nor an evaluation ID" in finished.err
    assert len(finished.err) < 500


async def test_a_run_of_no_ids_is_no_run(shell: Shell) -> None:
    (shell.folder / "ids.txt").write_text("\n\n")
    await refused(shell, "run", "ids.txt", code=2, said="there is no evaluation ID in it")


async def test_a_status_where_nothing_was_run_says_so(shell: Shell) -> None:
    await refused(shell, "status", code=2, said="nothing has been run here")
    assert not list(shell.folder.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("simulate", "--ids", "3"), ("audit", "ids.txt"), ("audit", "--json", "ids.txt"), ("verify", "--grace", "0")],
)
async def test_who_has_read_enough_ends_a_command_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    # Long enough to be written before the command ends.
    (tmp_path / "ids.txt").write_text("".join(f"{uuid4()}\n" for _ in range(2_000)))
    (tmp_path / "archive").mkdir()
    for number in range(200):
        (tmp_path / "archive" / f"{number}{'x' * 200}").touch()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody_reads:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.cli", *arguments),
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=nobody_reads,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
    lines = [line for line in said.decode().splitlines() if '"logger": "docv.access"' not in line]
    assert (process.returncode, lines) == (1, [])
