"""Every command on the pages is run, or parsed by the command line, or listed with a reason not to run it."""

import contextlib
import itertools
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import start_simulator
from tasks.storage.local_bucket import LocalBucket
from tests import repository
from tests.archived_bundles import EVALUATION, archive_bundle
from tests.command_line import parse
from tests.commands import KEY, Shell, finish
from tests.test_deploy import COMPOSE
from tests.test_kubernetes import DEPLOYMENTS, of_kind
from tests.zips import Raw, forged

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page.read_text("utf-8") for page in repository.pages(ROOT) if page.name != "CHANGELOG.md"}
BLOCK = re.compile(r"(?ms)^ *```(\w*)\n(.*?)^ *```$")
# The tests of these pages run each block of bash as a whole. Blocks without a language are commands, one per line.
SCRIPTS = {"README.md", "archive-format.md", "producers.md"}
NO_COMMANDS = {"dotenv", "json", "mermaid", "nginx", "python", "text", "toml"}
# How the other commands begin, and why no test here runs them. Commands of docv-archive among them are parsed.
NOT_RUN = {
    "DOCV_ACCOUNTS=": "a worker does not end",
    "DOCV_OPERATORS=": "a server does not end",
    "DOCV_RISKOS_URL=": "test_readme.py runs this rehearsal",
    "aws": "needs an AWS account",
    "curl": "needs a simulator on a fixed port",
    "df": "shows the disks of this machine",
    "docker": "needs Docker",
    "docv-archive --version": "test_install.py runs it",
    "docv-archive audit customers.csv --inventory": "needs an S3 Inventory report",
    "docv-archive cancel --run": "ends the run of later commands",
    "docv-archive hold": "stops later commands, and a repeated `resume` is not run",
    "docv-archive erase 0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10": "waits until leases have expired",
    "docv-archive erase ID…": "names no evaluation",
    "docv-archive erase requests.csv": "waits until leases have expired",
    "docv-archive resume --run": "needs a run on hold for its refusals",
    "docv-archive simulate --key": "a server does not end",
    "docv-archive simulate --port": "a server does not end",
    "docv-archive simulate --webhook": "needs a server that takes the events",
    "docv-archive worker": "a worker does not end",
    "export": "needs a secret",
    "journalctl": "needs systemd",
    "kubectl": "needs a cluster",
    "make": "a test compares the target with the Makefile",
    "pip": "needs a package index",
    "python3 open_sealed.py": "test_archive_format.py runs it",
    "read": "asks for a password",
    "redis-cli": "needs the program; faults/test_redis_acl.py applies the rules",
    "sed": "a test below runs it",
    "sha256sum": "needs the output of open_sealed.py",
    "systemctl": "needs systemd",
    "systemd-run": "needs systemd",
    "uv": "needs a package index",
    "uvx": "needs a package index",
}
SHELL = {"<", ">", "&", "&&", "|"}


def lines_of(page: str) -> list[str]:
    """Return the commands of a page's blocks, each on one line."""
    code = "".join(code for language, code in BLOCK.findall(PAGES[page]) if not language)
    without_comments = re.sub(r"(?m)(^| )# .*", "", code.replace("\\\n", " "))
    return [" ".join(line.split()) for line in without_comments.splitlines() if line.strip()]


def inline() -> list[str]:
    """Return the commands in the sentences of pages, alerts, templates and code."""
    pages = re.findall(r"`(docv-archive [^`…]+)`", "\n".join(BLOCK.sub("", text) for text in PAGES.values()))
    files = [ROOT / "deploy/prometheus/alerts.yml", *repository.sources(ROOT), *repository.templates(ROOT)]
    others = re.findall(r"`(docv-archive [^`…{}\n\"]+)`", "\n".join(file.read_text("utf-8") for file in files))
    return [" ".join(command.split()) for command in pages + others]


def block_of(page: str, language: str) -> str:
    """Return the first block of a page in a language."""
    return next(code for each, code in BLOCK.findall(PAGES[page]) if each == language)


def arguments(line: str) -> list[str] | None:
    """Return the arguments of docv-archive in a command such as `kubectl exec … -- docv-archive …`, or None."""
    words = shlex.split(line)
    for index, word in enumerate(words):
        is_value = index > 0 and re.match("-+[a-z]", words[index - 1])  # `-n docv-archive` is a namespace
        if Path(word).name == "docv-archive" and not is_value:
            return list(itertools.takewhile(lambda each: each not in SHELL, words[index + 1 :]))
    return None


def starts_with(line: str, start: str) -> bool:
    return f"{line} ".startswith(start if start.endswith("=") else f"{start} ")


def is_run(line: str) -> bool:
    return not any(starts_with(line, start) for start in NOT_RUN)


LINES = {page: lines_of(page) for page in PAGES}
ALL = sorted({line for lines in LINES.values() for line in lines})
RUN = {page: run for page, lines in LINES.items() if (run := list(dict.fromkeys(filter(is_run, lines))))}
TYPED = sorted({shlex.join(words) for line in ALL if (words := arguments(line))})
INLINE = sorted({shlex.join(words) for line in inline() if (words := arguments(line))})


@pytest.mark.parametrize("line", [line for line in ALL if is_run(line)])
def test_every_command_to_run_is_a_docv_archive_command(line: str) -> None:
    assert line.startswith("docv-archive "), "tag the block with its language, or add the command to NOT_RUN"


@pytest.mark.parametrize("start", NOT_RUN)
def test_every_reason_not_to_run_a_command_matches_a_command(start: str) -> None:
    assert any(starts_with(line, start) for line in ALL)


def test_scripts_are_on_pages_whose_tests_run_them() -> None:
    found = {(page, language) for page, text in PAGES.items() for language, _ in BLOCK.findall(text) if language}
    assert {page for page, language in found if language == "bash"} == SCRIPTS
    assert {language for _, language in found} == {"bash", *NO_COMMANDS}


@pytest.fixture
def secrets(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "docv_webhook_secrets").touch()


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("typed", TYPED)
def test_the_command_line_accepts_a_command_in_a_block(typed: str) -> None:
    with contextlib.suppress(click.exceptions.Exit):  # of --version
        parse(shlex.split(typed))


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("typed", INLINE)
def test_the_command_line_accepts_a_command_in_a_sentence(typed: str) -> None:
    with contextlib.suppress(click.exceptions.Exit, click.MissingParameter):  # of --help; `docv-archive run` alone
        parse(shlex.split(typed))


LISTS = [line for line in ALL if re.search(r"docv-archive backfill (-|s3:\S+) --run", line)]


@pytest.mark.parametrize("line", LISTS)
def test_a_list_reaches_a_backfill_in_every_installation(line: str) -> None:
    command, _, file = line.partition(" < ")
    words = shlex.split(command[command.rindex("docv-archive backfill") :])
    assert parse(words[1:]).params["source"] == ("-" if file else "s3://kyc-lists/customers.csv")
    if file:  # without these, the command's standard input is empty
        assert re.search(r"docker compose exec -T |kubectl \S+ \S+ exec -i |systemd-run --pipe ", line)


def test_a_list_is_shown_on_standard_input_and_in_s3() -> None:
    tools = sorted((line.split()[0], " < " in line) for line in LISTS)
    assert tools == [("docker", False), ("docker", True), ("kubectl", False), ("kubectl", True), ("systemd-run", True)]


def test_commands_use_the_names_of_the_deployments() -> None:
    text = "\n".join(ALL)
    deployments = {each["metadata"]["name"] for each in DEPLOYMENTS.values()}
    assert set(re.findall(r"deploy/(docv-archive-\w+)", text)) == deployments
    assert set(re.findall(r"kubectl -n ([\w-]+)", text)) == {*of_kind("Namespace")}
    composed = re.findall(
        r"(?m)docker compose (?:exec(?: -T)?|logs|.*up -d(?: --force-recreate)?) (\w+)(?: (\w+)$)?", text
    )
    assert {name for names in composed for name in names if name} <= {*COMPOSE["services"]}


@pytest.mark.parametrize("line", [line for line in ALL if line.startswith("make ")])
def test_every_make_target_on_a_page_exists(line: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
    assert set(line.split()[1:]) <= targets


@pytest.mark.parametrize("line", [line for line in ALL if line.startswith("sed ")])
def test_a_command_with_sed_replaces_every_placeholder(line: str, tmp_path: Path) -> None:
    files = [word for word in shlex.split(line) if word.endswith((".json", ".yml", ".yaml"))]
    searched = re.compile("|".join(text for _, text in re.findall(r"s([/#])(.+?)\1", line)))
    for file in files:
        if (ROOT / file).exists():
            assert searched.search((ROOT / file).read_text("utf-8"))
            (tmp_path / file).parent.mkdir(parents=True)
            shutil.copy(ROOT / file, tmp_path / file)
    command = ["bash", "-euc", line]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert not searched.search((tmp_path / files[-1]).read_text("utf-8"))


IDS = (
    EVALUATION.eval_id,
    *(eval_id_for(each, 1) for each in (Scenario.DOCUMENTED, Scenario.NO_DOCUMENTS, Scenario.REJECTED)),
)


@pytest.fixture
async def shell(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Shell]:
    """Make an installation with a worker, and with an evaluation whose bundle is damaged."""
    (tmp_path / "retention.toml").write_text(block_of("retention.md", "toml"))
    damaged = forged(Raw(name=b"a"), Raw(name=b"b", content=b"x", central={"crc": 1}, local={"crc": 1}))
    await archive_bundle(LocalBucket(tmp_path / "archive"), damaged)
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=1_000)) as riskos:
        settings = {
            "DOCV_API_KEY": KEY,
            "DOCV_RISKOS_URL": riskos.url,
            "DOCV_REDIS_URL": redis_url,
            "DOCV_RATE": "100",
            "DOCV_DAILY_QUOTA": "1000000",
            "DOCV_RETENTION": str(tmp_path / "retention.toml"),
        }
        shell = Shell(tmp_path, settings)
        worker = await shell.start("worker")
        yield shell
        worker.terminate()
        await finish(worker)


@pytest.mark.parametrize("page", RUN)
async def test_the_commands_on_a_page_run_in_order(page: str, shell: Shell) -> None:
    rows = [f"C-{number},{eval_id},Passport,R1,2026-01-01T00:00:00Z\n" for number, eval_id in enumerate(IDS)]
    for name in ["customers.csv", *re.findall(r"[\w-]+\.(?:csv|txt)\b", "\n".join(RUN[page]))]:
        (shell.folder / name).write_text("".join(["customer_id,eval_id,ID_TYPE,CODES,COMPLETED\n", *rows]))
    (shell.folder / "events.csv").write_text(block_of("retention.md", "text"))
    for name in {"2026-q3", "q3"} & set(" ".join(RUN[page]).split()):
        await shell.run("backfill", "customers.csv", "--run", name)
    for line in RUN[page]:
        finished = await shell.run(*(arguments(line) or ()), given="yes\n")
        if output := re.search(r"> (\S+)", line):
            (shell.folder / output[1]).write_text(finished.out)
        assert finished.code in {0, 1}, finished.err  # 1: not every evaluation is archived
        assert "Traceback" not in finished.err
