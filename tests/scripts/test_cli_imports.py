"""Start every command in a new interpreter, as a user does, and check its output, exit code and imports.

Other tests fork commands from a process that has loaded everything. These tests prove that a command works without
that, and that it does not delay its user with libraries that it does not need.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from scripts.cli import main
from tests.commands import KEY, Shell, finish
from tests.traps import lay_traps, sprung_traps

ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
LARGE = {"PIL", "aiohttp", "boto3", "celery", "cryptography.hazmat", "jinja2", "kombu", "obstore", "pyarrow"} | {
    *("pydantic_settings", "pyreqwest", "redis", "rich", "sqlite3", "structlog"),
}
SETTINGS = {"pydantic_settings"}
LEDGER = SETTINGS | {"redis"}
QUEUE = LEDGER | {"celery", "kombu", "rich", "structlog"}
ARCHIVE = SETTINGS | {"obstore", "rich"}
SERVICE = QUEUE | {"aiohttp", "obstore"}
RETRY = ARCHIVE | LEDGER | {"aiohttp", "cryptography.hazmat", "structlog"}

# Arguments, exit code, a part of standard output (of standard error if that is empty), large libraries that it loads.
STARTS = [
    (("--help",), 0, "Usage: ", set()),
    (("audit", "ids.txt"), 1, f"\n{ID},missing,", ARCHIVE | {"sqlite3"}),
    (("backfill", "ids.txt", "--dry-run"), 0, "not archived yet    1 ", QUEUE | {"obstore"}),
    (("cancel", ID), 0, "0 cancelled\nnot waiting: 1 of the given evaluations\n", LEDGER | {"obstore"}),
    (("dead-letters", "list"), 0, "there are no such dead letters\n", LEDGER | {"rich"}),
    (("demo", "--to", "ids.txt"), 2, "ids.txt", QUEUE | {"obstore"}),
    (("doctor",), 3, "fine     settings ", LEDGER | {"aiohttp", "rich", "structlog"}),
    (("enqueue", ID), 0, "1 accepted on the queue live\n", QUEUE | {"obstore"}),
    (("erase", ID, "--reason", "asked", "--dry-run"), 0, f"{ID}: would erase 0 objects", LEDGER | {"obstore"}),
    (("export", ID, "--to", "out"), 1, ID, ARCHIVE | {"cryptography.hazmat"}),
    (("hold", "--reason", "audit"), 0, "account default is on hold", LEDGER),
    (("legal-hold", "create", "acme", "--reason", "x"), 0, "matter acme was created at ", SETTINGS | {"obstore"}),
    (("legal-hold", "add", "acme", ID), 2, "matter acme does not exist", ARCHIVE),
    (("legal-hold", "list"), 0, "there are no matters\n", ARCHIVE),
    (("quarantine", "get", ID, "--to", "out"), 1, ID, SETTINGS | {"cryptography.hazmat", "obstore"}),
    (("quarantine", "list"), 0, "no bundle in quarantine matches\n", ARCHIVE),
    (("quarantine", "retry"), 0, "0 evaluations\n", RETRY),
    (("rate",), 0, "10 requests per second, from the settings", LEDGER),
    (("report", "q3"), 2, "the archive has no list of run q3", ARCHIVE | LEDGER | {"jinja2", "sqlite3"}),
    (("resume",), 0, "nothing is on hold\n", LEDGER),
    (("retention", "apply", "--unattended"), 2, "set DOCV_RETENTION", ARCHIVE),
    (("retention", "check"), 2, "there is no schedule, so every document is kept", ARCHIVE),
    (("retention", "plan"), 2, "set DOCV_RETENTION", ARCHIVE),
    (("retention", "status"), 2, "set DOCV_RETENTION", ARCHIVE),
    (("run",), 2, "Missing argument", set()),
    (("run", "ids.txt"), 2, "DOCV_API_KEY is not set", QUEUE | {"obstore"}),
    (("serve",), 2, "are not set, so no request could be authenticated", SERVICE | {"cryptography.hazmat", "jinja2"}),
    (("settings",), 0, "DOCV_ENVIRONMENT ", SETTINGS),
    (("show", ID), 1, "eval id ", ARCHIVE | LEDGER),
    (("simulate", "--ids", "100"), 0, "-4000-8000-", {"aiohttp"}),
    (("status",), 0, "queue live      0 ", LEDGER | {"rich"}),
    (("verify",), 0, "", ARCHIVE | LEDGER | {"cryptography.hazmat"}),
    (("worker",), 2, "DOCV_API_KEY is not set", SERVICE),
]
KEYLESS = {"run", "worker"}
TABLE = {"scripts", "scripts.cli", "scripts.console", "scripts.console.lazy_group"}


def parse_imports(err: str) -> tuple[set[str], str]:
    """Return the modules that Python reports as imported, and the rest of its standard error."""
    lines = err.splitlines(keepends=True)
    loaded = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    return loaded - {"imported package"}, "".join(line for line in lines if not line.startswith("import time:"))


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("arguments", "code", "output", "libraries"), STARTS, ids=[" ".join(arguments) for arguments, *_ in STARTS]
)
async def test_a_command_works_in_a_new_interpreter_and_loads_only_the_large_libraries_it_needs(
    arguments: tuple[str, ...], code: int, output: str, libraries: set[str], redis_url: str, tmp_path: Path
) -> None:
    lay_traps(tmp_path)
    (tmp_path / "ids.txt").write_text(f"{ID}\n")
    (tmp_path / "archive").mkdir()
    shell = Shell(tmp_path, {"PYTHONPROFILEIMPORTTIME": "1", "DOCV_REDIS_URL": redis_url})
    shell.settings |= {} if arguments[0] in KEYLESS else {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": "http://127.0.0.1:9"}
    finished = await finish(await shell.start_in_new_interpreter(*arguments), seconds=60)
    assert sprung_traps(tmp_path) == []
    loaded, err = parse_imports(finished.err)
    assert finished.code == code, err
    assert output in (finished.out or err)
    assert "Traceback" not in err
    assert "click" in loaded
    assert loaded & LARGE == libraries


async def list_modules_of_python(folder: Path) -> set[str]:
    """Return the modules that Python itself imports at its start, such as a distribution's ``sitecustomize``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ""),
        cwd=folder,
        env={"PYTHONPROFILEIMPORTTIME": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return parse_imports((await finish(process, seconds=60)).err)[0]


@pytest.mark.parametrize(
    ("arguments", "completed", "code", "output"),
    [
        (("--help",), None, 0, "Usage: "),
        (("dead-letters", "--help"), None, 0, "redrive"),
        (("legal-hold", "--help"), None, 0, "release"),
        (("quarantine", "--help"), None, 0, "retry"),
        (("statsu",), None, 2, "Did you mean 'status'?"),
        ((), "docv-archive re", 0, "plain,report\nplain,resume\n"),
        ((), "docv-archive dead-letters re", 0, "plain,redrive\n"),
    ],
)
async def test_help_and_completion_import_only_click_and_the_command_table(
    arguments: tuple[str, ...], completed: str | None, code: int, output: str, tmp_path: Path
) -> None:
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    if completed:
        words = str(completed.count(" "))
        environment |= {"_DOCV_ARCHIVE_COMPLETE": "bash_complete", "COMP_WORDS": completed, "COMP_CWORD": words}
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("docv-archive"), *arguments),
        cwd=tmp_path,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    finished = await finish(process, seconds=60)
    loaded, err = parse_imports(finished.err)
    assert finished.code == code, err
    assert output in (finished.out or err)
    packages = {
        name.partition(".")[0] for name in loaded - await list_modules_of_python(tmp_path)
    } - sys.stdlib_module_names
    assert packages == {"click", "scripts"}
    assert {name for name in loaded if name.partition(".")[0] == "scripts"} == TABLE


def test_every_command_has_a_row_in_starts() -> None:
    assert {arguments[0] for arguments, *_ in STARTS} == {"--help", *main.commands}
