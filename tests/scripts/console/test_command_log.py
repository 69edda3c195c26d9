"""A command logs a line before and after its work, with its user and its targets."""

import getpass
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.console.command_log import logged_command
from tests.commands import Shell

ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


@pytest.fixture
def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url, "DOCV_ACTOR": "alice\n"})


async def test_a_command_logs_its_user_and_targets_before_and_after(shell: Shell) -> None:
    finished = await shell.run("enqueue", ID.upper(), "--run", "q3")
    begun, done = finished.access
    facts = {
        "action": "command.enqueue",
        "actor": "alice",
        "role": "command_line",
        "request_id": begun["request_id"],
        "evaluations": [ID],
        "run": "q3",
        "level": "info",
        "logger": "docv.access",
    }
    assert begun == {**facts, "event": "access.begun", "timestamp": begun["timestamp"]}
    assert done == {**facts, "event": "access.done", "exit_code": 0, "timestamp": done["timestamp"]}


async def test_a_refused_or_failed_command_is_logged(shell: Shell, redis: Redis) -> None:
    refused = await shell.run("hold")
    assert [line["event"] for line in refused.access] == ["access.begun", "access.failed"]
    assert refused.access[1]["error"] == "MissingParameter"
    shell.settings["DOCV_REDIS_URL"] = "redis://127.0.0.1:1"
    unreachable = await shell.run("dead-letters", "drop", ID, "--yes")
    assert unreachable.code == 3
    assert [(line["action"], line.get("error")) for line in unreachable.access] == [
        ("command.dead-letters drop", None),
        ("command.dead-letters drop", "ServiceUnavailable"),
    ]


async def test_the_actor_is_the_operating_system_user_by_default(shell: Shell) -> None:
    del shell.settings["DOCV_ACTOR"]
    assert (await shell.run("resume")).access[0]["actor"] == getpass.getuser()


@pytest.mark.parametrize("arguments", [("status",), ("enqueue", "--help"), ("dead-letters", "--help"), ("--version",)])
async def test_a_command_is_not_logged_when_it_shows_no_evaluation(shell: Shell, arguments: tuple[str, ...]) -> None:
    finished = await shell.run(*arguments)
    assert (finished.code, finished.access) == (0, ())


def test_only_ids_and_the_run_are_logged_from_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with logged_command(("erase", "jane-doe.csv", "--reason", "she asked", "--run=q3", *[ID] * 101)):
        pass
    log = capsys.readouterr().err
    assert "jane" not in log
    assert "she asked" not in log
    assert log.count(ID) == 2 * 100
    assert '"run": "q3"' in log
    assert '"more_evaluations": 1' in log


def test_a_log_line_is_readable_text_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCV_ACTOR", "alice")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with logged_command(("erase", ID)):
        pass
    begun, done = capsys.readouterr().err.splitlines()
    assert "access.begun command.erase by alice, request " in begun
    assert "access.done command.erase by alice, request " in done
