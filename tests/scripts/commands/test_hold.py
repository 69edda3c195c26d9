"""`hold` pauses an account, and `resume` lets it continue."""

import getpass
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason, backfill_of
from tests.commands import Shell
from tests.holds import refused


@pytest.fixture
def holds(redis: Redis) -> Holds:
    return Holds(redis)


@pytest.fixture
def shell(holds: Holds, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})


async def test_hold_pauses_an_account_and_resume_ends_the_hold(shell: Shell, holds: Holds) -> None:
    await refused(holds, "default", 401, probe=False)

    held = await shell.run("hold", "--reason", "the month is\x1b[31m being\nclosed")

    assert (held.code, held.err) == (0, "")
    assert held.out.startswith("account default is on hold, until `docv-archive resume`.")
    (hold,) = await holds.list_all()
    assert (hold.scope, hold.reason, hold.note) == ("default", "by_hand", "the month is[31m beingclosed")
    assert "the month is[31m beingclosed" in (await shell.run("status")).out

    resumed = await shell.run("resume")

    assert resumed.code == 0
    assert resumed.out == "account default continues; it was on hold (by_hand: the month is[31m beingclosed)\n"
    assert await holds.list_all() == []
    again = await shell.run("resume")
    assert (again.code, again.out) == (0, "nothing is on hold\n")


async def test_json_shows_the_hold_and_resume_ends_every_hold(shell: Shell, holds: Holds) -> None:
    held = await shell.run("hold", "--reason", "x" * 1_000, "--json")
    assert held.code == 0
    (placed,) = json.loads(held.out)["holds"]
    assert 0 <= placed.pop("lasting_seconds") < 60
    assert placed == {"what": "account default", "reason": "by_hand", "note": "x" * 200, "by": getpass.getuser()}
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "no", OUTAGE_BACKOFF, probe=False)
    await holds.place_for(backfill_of("default"), Reason.QUOTA, "spent", 600)

    resumed = await shell.run("resume", "--json")

    assert resumed.code == 0
    assert [(hold["what"], hold["reason"], hold["note"]) for hold in json.loads(resumed.out)["ended"]] == [
        ("the archive", "cannot_write", "no"),
        ("account default", "by_hand", "x" * 200),
        ("the backfill of account default", "quota", "spent"),
    ]
    assert await holds.list_all() == []
    assert json.loads((await shell.run("resume", "--json")).out) == {"ended": []}


async def test_a_second_hold_is_refused_unless_it_replaces_the_first(shell: Shell, holds: Holds) -> None:
    shell.settings["DOCV_ACTOR"] = "alice"
    assert (await shell.run("hold", "--reason", "audit")).code == 0
    shell.settings["DOCV_ACTOR"] = "bob"
    refused = await shell.run("hold", "--reason", "lunch")
    assert (refused.code, refused.out) == (2, "")
    assert "account default is already on hold, by alice (audit); use --replace to replace that hold" in refused.err
    (hold,) = await holds.list_all()
    assert (hold.by, hold.note) == ("alice", "audit")
    assert "audit, by alice" in (await shell.run("status")).out
    assert json.loads((await shell.run("status", "--json")).out)["holds"][0]["by"] == "alice"

    assert (await shell.run("hold", "--reason", "lunch", "--replace", "--by", "carol")).code == 0
    (hold,) = await holds.list_all()
    assert (hold.by, hold.note) == ("carol", "lunch")


async def test_a_hold_without_a_reason_is_refused(shell: Shell, holds: Holds) -> None:
    finished = await shell.run("hold")
    assert (finished.code, finished.out) == (2, "")
    assert "--reason" in finished.err
    assert await holds.list_all() == []


@pytest.mark.parametrize("arguments", [("hold", "--reason", "why not"), ("resume",)])
async def test_hold_and_resume_do_nothing_without_redis(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    shell = Shell(tmp_path)
    finished = await shell.run(*arguments)
    assert (finished.code, finished.out) == (2, "")
    assert "nothing has been run here" in finished.err
    assert not list(shell.folder.iterdir())
