"""What the README shows is so: its settings, its commands, its examples."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from scripts.cli import main
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import start_simulator
from worker.config.settings import Settings

README = Path(__file__).parents[1] / "README.md"
ROWS = re.findall(r"^\| (`DOCV_.*?) \| ?(.*?) ?\|", README.read_text("utf-8"), re.MULTILINE)
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_every_setting_is_told_and_no_other() -> None:
    told = [name for names, _ in ROWS for name in re.findall(r"DOCV_([A-Z0-9_]+)", names)]
    assert sorted(told) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize(("names", "default"), ROWS, ids=lambda text: text.replace("`", ""))
def test_the_defaults_are_those_of_the_code(names: str, default: str) -> None:
    for name in re.findall(r"DOCV_([A-Z0-9_]+)", names):
        value = getattr(Settings(_env_file=None), name.lower())
        if name == "ARCHIVE_URL":
            assert value == (Path.cwd() / "archive").as_uri()
        elif name not in {"NO_DOCUMENTS_TEXTS", "GATEWAY_TEXTS"}:
            assert default.strip("`") == ("" if value in (None, {}, ()) else str(value))


def test_every_command_is_in_the_table_and_no_other() -> None:
    table = README.read_text("utf-8").split("| command |")[1].split("\n\n")[0]
    assert {row.split()[0] for row in re.findall(r"^\| `(.*?)`", table, re.MULTILINE)} == set(main.commands)


async def test_the_rehearsal_runs_as_it_is_written(tmp_path: Path) -> None:
    rehearsal = next(block for block in BLOCKS if "simulate --ids" in block)
    async with await start_simulator(SimulatorOptions()) as riskos:
        lines = [line for line in rehearsal.splitlines() if not line.endswith("&")]
        script = "\n".join(lines).replace("http://127.0.0.1:8400", riskos.url).replace("--ids 300", "--ids 60")
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euc", script),
            cwd=tmp_path,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "DOCV_ATTEMPTS": "1",
                "DOCV_RATE": "100",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(shell.communicate(), 100)
    assert re.search(r"archived +\d+", out.decode()), err.decode()
    assert shell.returncode == 1  # some of every sort failed
