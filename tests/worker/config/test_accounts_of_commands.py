"""Commands with an account use only that one."""

import csv
import io
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, backfill_of
from tests.commands import Shell

KYB = '[kyb]\napi_key = "key-of-kyb"\nenvironment = "production"\nrate = 3\n'


@pytest.fixture
def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    (tmp_path / "accounts.toml").write_text(KYB)
    settings = {"DOCV_REDIS_URL": redis_url, "DOCV_ACCOUNTS": "accounts.toml", "DOCV_API_KEY": "key-of-ours"}
    return Shell(tmp_path, settings)


async def test_hold_and_resume_affect_one_account(shell: Shell, redis: Redis) -> None:
    holds = Holds(redis)
    await holds.place_manual("default", "ours")
    await holds.place_for(backfill_of("kyb"), Reason.QUOTA, "spent", 600)
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "no", OUTAGE_BACKOFF, probe=False)
    assert (await shell.run("hold", "--reason", "theirs", "--account", "kyb")).code == 0
    ended = json.loads((await shell.run("resume", "--account", "kyb", "--json")).out)["ended"]
    assert [each["what"] for each in ended] == ["account kyb", "the backfill of account kyb"]
    assert [hold.scope for hold in await holds.list_all()] == [ARCHIVE, "default"]


async def test_status_shows_each_account_and_unknown_ones(shell: Shell, redis: Redis) -> None:
    await Holds(redis).place_manual("kyb", "theirs")
    ledger, eval_id = Ledger(redis), "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "a-stranger", Trigger("enqueue")))
    (entry,) = await ledger.lease([eval_id], token="ours")
    await ledger.await_hold(entry, cause="account_unknown")
    assert (await shell.run("rate", "2", "--account", "kyb")).code == 0

    found = json.loads((await shell.run("status", "--json")).out)

    assert found["rate"] == found["accounts"]["default"]["rate"]
    assert (found["accounts"]["default"]["rate"]["configured"], found["accounts"]["kyb"]["rate"]["configured"]) == (
        10,
        2,
    )
    assert (found["accounts"]["default"]["quota"], found["accounts"]["kyb"]["quota"]) == (1000, None)
    assert [hold["what"] for hold in found["accounts"]["kyb"]["holds"]] == ["account kyb"]
    assert found["accounts"]["default"]["holds"] == []
    assert found["unknown_accounts"] == {"a-stranger": 1}
    shown = (await shell.run("status")).out
    for words in ("rate of kyb", "rate of default", "quota of default", "unknown account a-stranger"):
        assert words in shown


async def test_enqueued_evaluations_and_dead_letters_have_an_account(shell: Shell, redis: Redis) -> None:
    ours, theirs = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11"
    assert (await shell.run("enqueue", ours)).code == 0
    assert (await shell.run("enqueue", theirs, "--account", "kyb")).code == 0
    entries = await Ledger(redis).lease([ours, theirs], token="ours")
    assert [entry.account for entry in entries] == ["default", "kyb"]
    for entry in entries:
        await Ledger(redis).dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    listed = (await shell.run("dead-letters", "list", "--account", "kyb", "--json")).out.splitlines()
    assert [json.loads(line)["eval_id"] for line in listed] == [theirs]


async def test_the_same_list_for_another_account_is_another_run(shell: Shell) -> None:
    (shell.folder / "ids.txt").write_text("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10\n")
    backfill = ("backfill", "ids.txt", "--run", "q3", "--detach")
    assert (await shell.run(*backfill, "--account", "kyb")).code == 0
    again = await shell.run(*backfill)
    assert (again.code, "run q3 began" in again.err) == (2, True), again.err
    assert (shell.folder / "archive" / "runs" / "production" / "q3" / "run.json").exists()


async def test_commands_read_the_archive_in_the_environment_of_the_account(shell: Shell) -> None:
    eval_id = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    folder = shell.folder / "archive" / "production" / eval_id
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    for arguments, manifest in (((), ""), (("--account", "kyb"), f"production/{eval_id}/manifest.json")):
        finished = await shell.run("audit", "-", *arguments, given=eval_id)
        (row,) = csv.DictReader(io.StringIO(finished.out))
        assert row["manifest"] == manifest


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "-"),
        ("export", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "--to", "somewhere"),
        ("erase", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "--reason", "x", "--dry-run"),
        ("report", "q3"),
        ("legal-hold", "add", "acme", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"),
        ("run", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"),
        ("verify", "-"),
    ],
    ids=lambda command: command[0],
)
async def test_an_unknown_account_is_reported_in_one_sentence(shell: Shell, command: tuple[str, ...]) -> None:
    finished = await shell.run(*command, "--account", "nobody")
    assert finished.code == 2
    assert finished.err == "docv-archive: no account 'nobody': known are default, kyb\n"


async def test_a_problem_in_the_accounts_file_is_reported_at_startup(shell: Shell) -> None:
    (shell.folder / "accounts.toml").write_text("[kyb]\nrate = 0\n")
    finished = await shell.run("worker")
    assert finished.code == 2
    assert finished.err.splitlines()[0].endswith("[kyb]: rate: Input should be greater than 0")
    assert "Traceback" not in finished.err
