"""The README is short, and its rehearsal works as written."""

import asyncio
import os
import re
import sys
from pathlib import Path

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.rehearsal import rehearsal_commands, rehearsal_settings
from scripts.simulator.server import start_simulator

README = Path(__file__).parents[1] / "README.md"
LINES = README.read_text("utf-8").splitlines()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_readme_is_short() -> None:
    assert len(LINES) <= 120


def test_the_two_commands_of_make_are_on_the_first_screen() -> None:
    assert {"make demo", "make test"} <= {line.partition("  ")[0] for line in LINES[:10]}


def test_the_rehearsal_matches_the_output_of_the_simulator() -> None:
    rehearsal = next(block for block in BLOCKS if "simulate --ids" in block)
    settings = rehearsal_settings("http://127.0.0.1:8400", "simulated-key", None)
    assert rehearsal == f"docv-archive simulate --port 8400 &\n{rehearsal_commands(settings)}\n"


async def test_the_rehearsal_runs_as_written_and_ends_soon(tmp_path: Path) -> None:
    rehearsal = next(block for block in BLOCKS if "simulate --ids" in block)
    async with await start_simulator(SimulatorOptions()) as riskos:
        lines = [line for line in rehearsal.splitlines() if not line.endswith("&")]
        script = "\n".join(lines).replace("http://127.0.0.1:8400", riskos.url).replace("--ids 300", "--ids 100")
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euc", script),
            cwd=tmp_path,
            env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(shell.communicate(), 100)
    assert re.search(r"failed +1\b", out.decode()), err.decode()
    assert shell.returncode == 1  # the rehearsal has evaluations of every kind, and some of them fail
