"""Commands in the folder of another project import none of its modules, whatever their names."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scripts.simulator.expected import demo_ids
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import start_simulator
from tests.commands import KEY, Finished, Shell, finish
from tests.traps import lay_traps, sprung_traps


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    lay_traps(tmp_path)
    return Shell(tmp_path, {"DOCV_RATE": "100"})


async def start_installed(shell: Shell, *arguments: str) -> asyncio.subprocess.Process:
    """Start the installed command, not a fork of a process that has everything loaded."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("docv-archive"), *arguments),
        cwd=shell.folder,
        env={"PATH": "/usr/bin:/bin", **shell.settings},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


async def run_installed(shell: Shell, *arguments: str) -> Finished:
    return await finish(await start_installed(shell, *arguments))


@pytest.fixture
async def riskos(shell: Shell) -> AsyncIterator[None]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000)) as simulator:
        shell.settings |= {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": simulator.url}
        yield


async def test_the_demo_and_its_processes_import_no_modules_of_the_working_directory(shell: Shell) -> None:
    finished = await run_installed(shell, "demo", "--count", "100", "--json")
    assert sprung_traps(shell.folder) == []
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["total"] == 100


@pytest.mark.usefixtures("riskos")
async def test_a_run_and_its_processes_import_no_modules_of_the_working_directory(shell: Shell) -> None:
    finished = await run_installed(shell, "run", "--json", *demo_ids(5))
    assert sprung_traps(shell.folder) == []
    assert finished.out, finished.err
    assert json.loads(finished.out)["total"] == 5


@pytest.mark.usefixtures("riskos")
@pytest.mark.parametrize(("command", "log_text"), [("worker", b" ready"), ("serve", b"serve.started")])
async def test_a_service_imports_no_modules_of_the_working_directory(
    shell: Shell, redis_url: str, command: str, log_text: bytes
) -> None:
    shell.settings |= {"DOCV_REDIS_URL": redis_url, "DOCV_OPERATORS": "a-token-of-an-operator"}
    shell.settings["DJANGO_SETTINGS_MODULE"] = "settings"  # the other project's; Celery would load it
    process = await start_installed(shell, command, *(["--port=0"] if command == "serve" else []))
    assert process.stderr
    log = b""
    while log_text not in log and (line := await process.stderr.readline()):
        log += line
    assert sprung_traps(shell.folder) == [], log
    assert log_text in log
    process.send_signal(signal.SIGTERM)
    assert (await finish(process)).code == 0
