"""Every command, started from nothing as a user starts it: what it says, how it ends, and what it loads for that.

Other tests fork it from a process that has loaded everything: here a command shows that it can stand alone, and that it
does not have its user wait for a library that it has no use for.
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
OF_THE_LEDGER = SETTINGS | {"redis"}
OF_THE_QUEUE = OF_THE_LEDGER | {"celery", "kombu", "rich", "structlog"}
OF_THE_ARCHIVE = SETTINGS | {"obstore", "rich"}
OF_A_DOOR = OF_THE_QUEUE | {"aiohttp", "obstore"}
OF_THE_RETRY = OF_THE_ARCHIVE | OF_THE_LEDGER | {"aiohttp", "cryptography.hazmat", "structlog"}

# What is given, how it ends, what it says on standard output or, where that is nothing, on the other, what it loads.
STARTS = [
    (("--help",), 0, "Usage: ", set()),
    (("audit", "ids.txt"), 1, f"\n{ID},missing,", OF_THE_ARCHIVE | {"sqlite3"}),
    (("backfill", "ids.txt", "--dry-run"), 0, "not archived yet    1 ", OF_THE_QUEUE | {"obstore"}),
    (("cancel", ID), 0, "0 cancelled\n1 of the given evaluations were not waiting\n", OF_THE_LEDGER | {"obstore"}),
    (("dead-letters", "list"), 0, "there are no such dead letters\n", OF_THE_LEDGER | {"rich"}),
    (("demo", "--to", "ids.txt"), 2, "ids.txt", OF_THE_QUEUE | {"obstore"}),
    (("doctor",), 3, "fine     settings ", OF_THE_LEDGER | {"aiohttp", "rich", "structlog"}),
    (("enqueue", ID), 0, "1 accepted on the queue live\n", OF_THE_QUEUE | {"obstore"}),
    (("erase", ID, "--reason", "asked", "--dry-run"), 0, f"{ID}: would erase 0 objects", OF_THE_LEDGER | {"obstore"}),
    (("export", ID, "--to", "out"), 1, ID, OF_THE_ARCHIVE | {"cryptography.hazmat"}),
    (("hold", "--reason", "audit"), 0, "account default is on hold", OF_THE_LEDGER),
    (("legal-hold", "create", "acme", "--reason", "x"), 0, "matter acme was created at ", SETTINGS | {"obstore"}),
    (("legal-hold", "add", "acme", ID), 2, "matter acme does not exist", OF_THE_ARCHIVE),
    (("legal-hold", "list"), 0, "there are no matters\n", OF_THE_ARCHIVE),
    (("quarantine", "get", ID, "--to", "out"), 1, ID, SETTINGS | {"cryptography.hazmat", "obstore"}),
    (("quarantine", "list"), 0, "no bundle in quarantine matches\n", OF_THE_ARCHIVE),
    (("quarantine", "retry"), 0, "0 evaluations\n", OF_THE_RETRY),
    (("rate",), 0, "10 requests per second, from the settings", OF_THE_LEDGER),
    (("report", "q3"), 2, "the archive has no list of run q3", OF_THE_ARCHIVE | OF_THE_LEDGER | {"jinja2", "sqlite3"}),
    (("resume",), 0, "nothing is on hold\n", OF_THE_LEDGER),
    (("retention", "apply", "--unattended"), 2, "set DOCV_RETENTION", OF_THE_ARCHIVE),
    (("retention", "check"), 2, "there is no schedule, so every document is kept", OF_THE_ARCHIVE),
    (("retention", "plan"), 2, "set DOCV_RETENTION", OF_THE_ARCHIVE),
    (("retention", "status"), 2, "set DOCV_RETENTION", OF_THE_ARCHIVE),
    (("run",), 2, "Missing argument", set()),
    (("run", "ids.txt"), 2, "DOCV_API_KEY is not set", OF_THE_QUEUE | {"obstore"}),
    (("serve",), 2, "are not set, so no request could be authenticated", OF_A_DOOR | {"cryptography.hazmat", "jinja2"}),
    (("settings",), 0, "DOCV_ENVIRONMENT ", SETTINGS),
    (("show", ID), 1, "eval id ", OF_THE_ARCHIVE | OF_THE_LEDGER),
    (("simulate", "--ids", "100"), 0, "-4000-8000-", {"aiohttp"}),
    (("status",), 0, "queue live      0 ", OF_THE_LEDGER | {"rich"}),
    (("verify",), 0, "", OF_THE_ARCHIVE | OF_THE_LEDGER | {"cryptography.hazmat"}),
    (("worker",), 2, "DOCV_API_KEY is not set", OF_A_DOOR),
]
KEYLESS = {"run", "worker"}
TABLE = {"scripts", "scripts.cli", "scripts.console", "scripts.console.lazy_group"}


def imports(err: str) -> tuple[set[str], str]:
    """Return the modules that Python reports as imported, and the rest of its standard error."""
    lines = err.splitlines(keepends=True)
    loaded = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    return loaded - {"imported package"}, "".join(line for line in lines if not line.startswith("import time:"))


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("arguments", "code", "said", "loads"), STARTS, ids=[" ".join(arguments) for arguments, *_ in STARTS]
)
async def test_a_command_started_from_nothing_does_what_it_should_with_no_library_too_many(
    arguments: tuple[str, ...], code: int, said: str, loads: set[str], redis_url: str, tmp_path: Path
) -> None:
    lay_traps(tmp_path)
    (tmp_path / "ids.txt").write_text(f"{ID}\n")
    (tmp_path / "archive").mkdir()
    shell = Shell(tmp_path, {"PYTHONPROFILEIMPORTTIME": "1", "DOCV_REDIS_URL": redis_url})
    shell.settings |= {} if arguments[0] in KEYLESS else {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": "http://127.0.0.1:9"}
    finished = await finish(await shell.start_in_new_interpreter(*arguments), seconds=60)
    assert sprung_traps(tmp_path) == []
    loaded, err = imports(finished.err)
    assert finished.code == code, err
    assert said in (finished.out or err)
    assert "Traceback" not in err
    assert "click" in loaded
    assert loaded & LARGE == loads


async def loaded_by_python(folder: Path) -> set[str]:
    """Return the modules that Python imports by itself at its start, such as a distribution's ``sitecustomize``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ""),
        cwd=folder,
        env={"PYTHONPROFILEIMPORTTIME": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return imports((await finish(process, seconds=60)).err)[0]


@pytest.mark.parametrize(
    ("arguments", "completed", "code", "said"),
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
async def test_short_help_and_completion_import_nothing_but_click_and_the_table(
    arguments: tuple[str, ...], completed: str | None, code: int, said: str, tmp_path: Path
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
    loaded, err = imports(finished.err)
    assert finished.code == code, err
    assert said in (finished.out or err)
    packages = {name.partition(".")[0] for name in loaded - await loaded_by_python(tmp_path)} - sys.stdlib_module_names
    assert packages == {"click", "scripts"}
    assert {name for name in loaded if name.partition(".")[0] == "scripts"} == TABLE


def test_every_verb_is_started() -> None:
    assert {arguments[0] for arguments, *_ in STARTS} == {"--help", *main.commands}
