"""Demonstrate docv-archive without a key, a server or Docker."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich._export_format import CONSOLE_SVG_FORMAT  # save_svg takes a template; this is its default
from rich.console import Console

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.options import json_option
from scripts.console.program_name import get_command_name
from scripts.console.summary import outcome_table
from scripts.local.machine import local_workers
from scripts.simulator.bundles import documents_of
from scripts.simulator.expected import demo_ids, expected_outcome
from scripts.simulator.scenarios import scenario_of
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.manifest import Manifest
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, load_settings

_KEY = "a-key-for-the-demo"
_ENVIRONMENT = "sandbox"
_DEMO_MARK = ".docv-archive-demo"
_BEFORE = 20
_SHOWN = 16


@dataclass(frozen=True, slots=True)
class VerifiedDocuments:
    """The result of checking the archive.

    Attributes:
        documents: documents that are byte for byte as they were served.
        size: their bytes.
        wrong: evaluations whose outcome or documents differ from those of their scenario.
    """

    documents: int
    size: int
    wrong: tuple[str, ...]


@click.command()
@click.option("--count", type=click.IntRange(100, 5000), default=300, show_default=True, help="Number of evaluations.")
@click.option("--to", "folder", default="demo-archive", show_default=True, help="Folder for the demo's archive.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Also save the output as this SVG file.")
@json_option()
def demo(count: int, folder: str, picture: str | None, *, as_json: bool) -> int:
    """Try the archiver without a key, server or Docker.

    Starts a simulated RiskOS, an embedded Redis and a worker, and archives evaluations of every kind.
    """
    console = (
        Console(stderr=as_json, record=True, width=104, force_terminal=True, highlight=False)
        if picture
        else Console(stderr=as_json, highlight=False)
    )
    return interruptible(lambda: _demo(count, _fresh(Path(folder)), picture, console, as_json=as_json))


def _demo(count: int, archive: Path, picture: str | None, console: Console, *, as_json: bool) -> int:
    eval_ids = demo_ids(count)
    with tempfile.TemporaryDirectory(prefix="docv-demo-") as state, _simulator() as url:
        console.print(f"A simulated RiskOS answers at {url}; Redis and a worker are started.")
        with local_workers(_settings(archive, Path(state), url)) as here:
            console.print(f"Yesterday, {_BEFORE} evaluations came in ...")
            documented = [each for each in eval_ids if expected_outcome(scenario_of(each)) is Outcome.ARCHIVED]
            before = here.archive(documented[:_BEFORE])
            console.print(f"... and {before.sentence()}.")
            console.print(f"Today, {len(eval_ids)} IDs arrive: yesterday's among them, and some of every kind:\n")
            summary = here.archive(eval_ids)
    console.print(outcome_table(summary))
    if as_json:
        click.echo(summary.as_json())
    checked = _verify_archive(archive, eval_ids)
    _print_next_steps(console, archive, eval_ids, checked)
    if picture:
        # Without the web fonts of rich's template, which a browser would fetch.
        form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        console.save_svg(picture, title="docv-archive demo", code_format=form)
    rare = {Outcome.WITHHELD, Outcome.CANCELLED}
    has_every_outcome = all(count for outcome, count in summary.counters.outcomes.items() if outcome not in rare)
    return OK if not checked.wrong and not summary.counters.pending and has_every_outcome else NOT_ALL


def _settings(archive: Path, state: Path, url: str) -> Settings:
    return load_settings(
        environment=_ENVIRONMENT,
        accounts=None,
        api_key=_KEY,
        riskos_url=url,
        proxy=None,
        archive_url=archive.absolute().as_uri(),
        redis_url=None,
        state_dir=state,
        rate=100,
        daily_quota=1_000_000,
        attempts=2,
        retry_seconds=1,
    )


def _fresh(folder: Path) -> Path:
    """Return an empty folder, after removing that of an earlier demo.

    Raises:
        click.UsageError: the folder exists and is not that of a demo.
    """
    if folder.exists():
        if not (folder / _DEMO_MARK).is_file():
            raise click.UsageError(f"{folder} already exists and is not from a demo; choose another folder with --to")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _DEMO_MARK).touch()
    return folder


@contextmanager
def _simulator() -> Iterator[str]:
    """Run the simulator in another process; yield its URL.

    Raises:
        ServiceUnavailable: the process does not start.
    """
    command = [sys.executable, "-P", "-m", "scripts.cli", "simulate", "--port=0", f"--key={_KEY}", "--with-parent"]
    with subprocess.Popen(  # noqa: S603  # our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            words = process.stdout.readline().split() if process.stdout else []
            if not words:
                raise ServiceUnavailable("the simulator did not start")
            yield words[-1]
        finally:
            process.terminate()


def _verify_archive(archive: Path, eval_ids: Sequence[str]) -> VerifiedDocuments:
    """Compare the archive with what the simulator served."""
    documents, size, wrong = 0, 0, []
    for eval_id in eval_ids:
        expected = expected_outcome(scenario_of(eval_id))
        path = archive / Evaluation(eval_id, _ENVIRONMENT).manifest_key
        if not path.is_file():
            if expected is not Outcome.FAILED:
                wrong.append(eval_id)
            continue
        manifest = Manifest.model_validate_json(path.read_bytes())
        bytes_of = {record.name: (archive / record.key).read_bytes() for record in manifest.documents}
        served = documents_of(eval_id) if expected is Outcome.ARCHIVED else bytes_of
        if manifest.outcome is not expected or sorted(bytes_of.values()) != sorted(served.values()):
            wrong.append(eval_id)
        documents += len(bytes_of)
        size += sum(map(len, bytes_of.values()))
    return VerifiedDocuments(documents, size, tuple(wrong))


def _print_next_steps(console: Console, archive: Path, eval_ids: Sequence[str], checked: VerifiedDocuments) -> None:
    if checked.wrong:
        console.print(f"[bold red]{len(checked.wrong)} did not end as expected[/], such as {checked.wrong[0]}")
    else:
        console.print(
            f"\n[green]Checked:[/] {format_count(checked.documents, 'document')}, {checked.size / 1e6:.1f} MB, "
            "are on disk byte for byte as they were served."
        )
    example = archive / _ENVIRONMENT / eval_ids[0]
    console.print(f"\nOpen the archive, for example [bold]{example}[/]:")
    for path in sorted(example.rglob("*.*")):
        kind = "" if path.parent == example else f"{path.parent.name}/"
        console.print(f"  {kind}{path.stem[:_SHOWN]}{'…' if len(path.stem) > _SHOWN else ''}{path.suffix}")
    console.print(
        f"and [bold]{archive}/quarantine[/] for what could not be read. "
        f"With a key of your own, in .env as DOCV_API_KEY:\n\n  [bold]{get_command_name(sys.argv[0])} run ids.txt[/]"
    )
