"""A forked command behaves like one in a new interpreter."""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from tests import forked
from tests.commands import Finished, finish

PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)


def process_options(folder: Path, **environment: str) -> Mapping[str, Any]:
    return {"cwd": folder, "env": {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}, **PIPES}


@pytest.mark.parametrize(
    ("module", "arguments", "given", "code"),
    [
        ("json.tool", ("--compact",), '{"a": [1, 2]}', 0),
        ("json.tool", (), "{", 1),
        ("json.tool", ("--unknown",), "", 2),
        ("site", (), "", 0),  # prints the origin of its modules, which is not the folder, and what it reads from HOME
    ],
)
async def test_a_fork_has_the_same_environment_streams_and_exit_code_as_a_new_interpreter(
    module: str, arguments: tuple[str, ...], given: str, code: int, tmp_path: Path
) -> None:
    options = process_options(tmp_path, COLUMNS="200")
    fork = await finish(await forked.start(module, *arguments, **options), given=given)
    process = await finish(await forked.start_in_new_interpreter(module, *arguments, **options), given=given)
    assert fork == process
    assert fork.code == code
    assert fork.out + fork.err


@pytest.fixture
def full_disk() -> Iterator[IO[str]]:
    with Path("/dev/full").open("w") as file:
        yield file


async def test_a_fork_fails_like_a_new_interpreter_when_its_output_cannot_be_written(
    full_disk: IO[str], tmp_path: Path
) -> None:
    results = []
    for start in (forked.start, forked.start_in_new_interpreter):
        process = await start("platform", **{**process_options(tmp_path), "stdout": full_disk})
        results.append((await process.communicate(), process.returncode))
    assert results[0] == results[1]
    assert results[0][1] == 120


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_fork_ends_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    process = await forked.start("json.tool", **process_options(tmp_path))
    assert process.returncode is None
    process.send_signal(number)
    assert await finish(process) == Finished(-number, "", "")


async def test_a_fork_does_not_wait_for_another_or_keep_its_streams_open(tmp_path: Path) -> None:
    first, second = [await forked.start("json.tool", "--compact", **process_options(tmp_path)) for _ in range(2)]
    assert (await finish(first, given="[1]")).out == "[1]\n"
    assert (await finish(second, given="[2]")).out == "[2]\n"
    assert first.pid != second.pid
