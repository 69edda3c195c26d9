"""`erase` asks for confirmation and prints each result. An erased evaluation is archived again only on request."""

import fcntl
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tests.archives import archive, eval_ids, store_run
from tests.commands import KEY, Shell

MINE = eval_id_for(Scenario.DOCUMENTED, 7)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=2_000)) as simulator:
        yield simulator


@pytest.fixture
def shell(simulator: Simulator, tmp_path: Path) -> Shell:
    settings = {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": simulator.url, "DOCV_RATE": "100"}
    return Shell(tmp_path, settings | {"DOCV_LEASE_SECONDS": "2", "DOCV_PUT_SECONDS": "1"})


async def test_an_erased_evaluation_is_not_archived_again_without_even_if_erased(
    shell: Shell, simulator: Simulator, tmp_path: Path
) -> None:
    assert (await shell.run("run", MINE)).code == 0
    requests = simulator.stats().requests
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--by", "operator", "--yes", "--json")
    assert finished.code == 0, finished.err
    facts = json.loads(finished.out)
    assert (facts["state"], facts["objects"] > 1) == ("erased", True)
    receipt = json.loads((tmp_path / "archive" / facts["receipt"]).read_text())
    assert (receipt["reason"], receipt["by"]) == ("request 4711", "operator")
    assert receipt["completed_at"]

    (tmp_path / "ids.txt").write_text(f"{MINE}\n")
    backfill = await shell.run("backfill", "ids.txt", "--run", "q3", "--refresh", "--json")
    assert (json.loads(backfill.out)["unchanged_outcomes"]["erased"], backfill.code) == (1, 0)
    assert simulator.stats().requests == requests

    again = await shell.run("backfill", "ids.txt", "--run", "q4", "--even-if-erased", "--json")
    assert json.loads(again.out)["outcomes"]["archived"] == 1
    assert simulator.stats().requests > requests


async def test_an_erasure_lasts_when_the_same_backfill_runs_with_an_empty_redis(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"{MINE}\n")
    erase = ("erase", MINE, "--reason", "request 4711", "--yes")
    backfill = ("backfill", "ids.txt", "--run", "q3", "--even-if-erased", "--json")
    for command in (("run", MINE), erase, backfill, erase):
        assert (await shell.run(*command)).code == 0
    shutil.rmtree(tmp_path / ".docv-archive")
    again = json.loads((await shell.run(*backfill)).out)
    assert (again["outcomes"]["archived"], again["unchanged_outcomes"]["erased"]) == (0, 1)


async def test_erase_takes_ids_files_standard_input_and_runs_together(shell: Shell, tmp_path: Path) -> None:
    bucket, ids = LocalBucket(tmp_path / "archive"), eval_ids(5)
    for eval_id in ids:
        await archive(bucket, eval_id, Outcome.NO_DOCUMENTS)
    await store_run(bucket, ids[2:4], "q3")
    (tmp_path / "ids.csv").write_text(f"name,eval_id\nx,{ids[0]}\n")
    erase = ("erase", "ids.csv", ids[1], "-", "--run", "q3", "--reason", "request 4711")
    finished = await shell.run(*erase, given=f"{ids[0].upper()}\nno ID\n")
    assert (finished.code, "give --yes, too" in finished.err) == (2, True)

    finished = await shell.run(*erase, "--yes", "--json", given=f"{ids[0].upper()}\nno ID\n")
    facts = [json.loads(line) for line in finished.out.splitlines()]
    assert [(each["eval_id"], each["state"]) for each in facts] == [(eval_id, "erased") for eval_id in ids[:4]]
    assert (finished.code, "standard input, line 2: 'no ID' is not a valid" in finished.err) == (1, True)
    found = await read_manifest(bucket, Evaluation(ids[4], "sandbox"))
    assert found
    assert found.manifest.erased is None


@pytest.mark.parametrize("given", ["", "n\n", "\n"], ids=["end of input", "no", "empty line"])
async def test_erase_changes_nothing_without_confirmation(shell: Shell, tmp_path: Path, given: str) -> None:
    finished = await shell.run("erase", MINE, "--reason", "request 4711", given=given)
    assert (finished.code, finished.out) == (1, "")
    assert "Continue?" in finished.err
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "two\nlines"])
async def test_a_reason_must_be_one_line(shell: Shell, reason: str) -> None:
    finished = await shell.run("erase", MINE, "--yes", "--reason", reason)
    assert finished.code == 2
    assert "--reason" in finished.err


async def test_a_dry_run_needs_no_confirmation_and_changes_nothing(shell: Shell) -> None:
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--dry-run")
    assert finished.code == 0
    assert finished.out == f"{MINE}: would erase 0 objects, 0 versions, 0 bytes\n"
    assert "DOCV_REDIS_URL is not set" in finished.err
    assert "--even-if-absent" in finished.err
    assert list(shell.folder.iterdir()) == []


async def test_erase_names_the_environment_when_the_evaluation_is_in_the_other_one(
    shell: Shell, tmp_path: Path
) -> None:
    assert (await shell.run("run", MINE)).code == 0
    erase = ("erase", MINE, "--reason", "request 4711", "--yes")
    elsewhere = Shell(shell.folder, shell.settings | {"DOCV_ENVIRONMENT": "production"})
    finished = await elsewhere.run(*erase)
    assert (finished.code, "sandbox has " in finished.out) == (1, True)
    assert "DOCV_ENVIRONMENT=sandbox" in finished.out
    assert not (tmp_path / "archive" / "receipts").exists()

    finished = await shell.run(*erase, "--json")
    assert (finished.code, json.loads(finished.out)["state"]) == (0, "erased")


async def test_erase_exits_with_1_and_writes_no_receipt_when_an_id_is_not_found(shell: Shell, tmp_path: Path) -> None:
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--yes", "--json")
    assert (finished.code, json.loads(finished.out)["state"]) == (1, "not_found")
    assert not (tmp_path / "archive" / "receipts").exists()
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--yes", "--even-if-absent", "--json")
    assert (finished.code, json.loads(finished.out)["state"]) == (0, "erased")


async def test_pending_completes_the_receipt_that_no_wait_leaves_open(shell: Shell, tmp_path: Path) -> None:
    assert (await shell.run("run", MINE)).code == 0
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--yes", "--no-wait", "--json")
    facts = json.loads(finished.out)
    assert (finished.code, facts["state"]) == (1, "open")
    receipt = tmp_path / "archive" / facts["receipt"]
    assert json.loads(receipt.read_text())["completed_at"] is None
    assert [path.name for path in (tmp_path / "archive" / "sandbox" / MINE).iterdir()] == ["manifest.json"]

    late = tmp_path / "archive" / "sandbox" / MINE / "selfie" / f"{'a' * 64}.jpg"
    late.parent.mkdir()
    late.write_bytes(b"late")
    finished = await shell.run("erase", "--pending", "--json")
    assert (finished.code, json.loads(finished.out)["state"]) == (0, "erased"), finished.err
    completed = json.loads(receipt.read_text())
    assert completed["completed_at"]
    assert completed["reason"] == "request 4711"
    assert "a" * 64 in completed["documents"]
    assert completed["objects"] == facts["objects"] + 1
    assert not late.exists()
    finished = await shell.run("erase", "--pending", "--json")
    assert (finished.code, finished.out) == (0, "")


@pytest.fixture
async def two_accounts(shell: Shell, tmp_path: Path) -> Shell:
    """Two accounts without `default`, each with an open receipt in its environment."""
    tables = ('[kyc]\napi_key = "key-of-kyc"\nenvironment = "production"', '[kyb]\napi_key = "key-of-kyb"')
    (tmp_path / "accounts.toml").write_text("\n".join(tables))
    (tmp_path / "accounts.toml").chmod(0o640)
    shell.settings["DOCV_ACCOUNTS"] = "accounts.toml"
    del shell.settings["DOCV_API_KEY"]
    for account in ("kyc", "kyb"):
        options = ("--even-if-absent", "--no-wait", "--account", account)
        assert "is open" in (await shell.run("erase", MINE, "--reason", "request 4711", "--yes", *options)).out
    return shell


def open_receipts(archive: Path) -> list[str]:
    """Return the environments that have an open receipt."""
    found = {path.relative_to(archive / "receipts").parts[0]: path for path in archive.glob("receipts/*/*/*.json")}
    return sorted(name for name, path in found.items() if not json.loads(path.read_text())["completed_at"])


async def test_pending_completes_the_receipts_of_all_accounts_when_none_is_named(
    two_accounts: Shell, tmp_path: Path
) -> None:
    assert open_receipts(tmp_path / "archive") == ["production", "sandbox"]
    finished = await two_accounts.run("erase", "--pending", "--json")
    assert finished.code == 0, finished.err
    results = [json.loads(line) for line in finished.out.splitlines()]
    assert [(each["state"], each["receipt"].split("/")[1]) for each in results] == [
        ("erased", "production"),
        ("erased", "sandbox"),
    ]
    assert open_receipts(tmp_path / "archive") == []


async def test_pending_completes_only_receipts_in_the_environment_of_a_named_account(
    two_accounts: Shell, tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    leftover = f"production/{MINE}/selfie/{'a' * 64}.jpg"
    await redis.sadd("docv:erased:leftovers", leftover)
    two_accounts.settings["DOCV_REDIS_URL"] = redis_url
    finished = await two_accounts.run("erase", "--pending", "--account", "kyb", "--json")
    (result,) = [json.loads(line) for line in finished.out.splitlines()]
    assert (finished.code, result["state"], result["receipt"].split("/")[1]) == (0, "erased", "sandbox")
    assert open_receipts(tmp_path / "archive") == ["production"]
    assert await redis.smembers("docv:erased:leftovers") == {leftover}


async def test_an_erasure_of_ids_needs_an_account_if_there_are_several(two_accounts: Shell) -> None:
    finished = await two_accounts.run("erase", MINE, "--reason", "request 4711", "--yes")
    assert (finished.code, "name an account" in finished.err) == (2, True)


async def test_pending_sweeps_recorded_leftovers_and_prints_them(
    shell: Shell, tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    shell.settings["DOCV_REDIS_URL"] = redis_url
    began = time.monotonic()
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--yes", "--even-if-absent")
    assert (finished.code, "waiting 3 s" in finished.err) == (0, True)
    assert time.monotonic() - began >= 3
    folder = tmp_path / "archive" / "sandbox" / MINE
    key = f"sandbox/{MINE}/selfie/{'a' * 64}.jpg"
    other = f"quarantine/sandbox/{eval_id_for(Scenario.DOCUMENTED, 8)}/{'b' * 64}.zip"
    for each in (key, other):
        (tmp_path / "archive" / each).parent.mkdir(parents=True)
        (tmp_path / "archive" / each).write_bytes(b"late")
    await redis.sadd("docv:erased:leftovers", key, other)
    status = await shell.run("status", "--json")
    assert json.loads(status.out)["objects_after_erasure"] == 2
    assert "erase --pending" in (await shell.run("status")).out

    finished = await shell.run("erase", "--pending", "--json")
    assert (finished.code, json.loads(finished.out)["state"]) == (0, "erased"), finished.err
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert (tmp_path / "archive" / other).exists(), "its evaluation was not erased"
    assert await redis.exists("docv:erased:leftovers") == 0
    receipts = [json.loads(path.read_text()) for path in (tmp_path / "archive" / "receipts").rglob("*.json")]
    assert sorted(receipt["objects"] for receipt in receipts) == [0, 1]
    assert all(receipt["completed_at"] for receipt in receipts)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pending", MINE),
        ("--pending", "--run", "q3"),
        ("--pending", "--reason", "request 4711"),
        ("--reason", "request 4711"),
        ("--reason", "request 4711", "no-such-file"),
        ("--reason", "request 4711", "--run", "q3"),
        (MINE,),
    ],
)
async def test_erase_takes_either_ids_with_a_reason_or_pending(shell: Shell, arguments: tuple[str, ...]) -> None:
    finished = await shell.run("erase", "--yes", *arguments)
    assert (finished.code, finished.out) == (2, "")


async def test_erase_waits_for_a_worker_of_an_embedded_redis_even_when_that_redis_is_gone(
    shell: Shell, tmp_path: Path
) -> None:
    assert (await shell.run("run", MINE)).code == 0
    erase = ("erase", MINE, "--reason", "request 4711", "--yes")
    assert "waiting" not in (await shell.run(*erase)).err
    with (tmp_path / ".docv-archive" / "private" / "redis.users").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        finished = await shell.run(*erase)
        assert (finished.code, "waiting 3 s" in finished.err) == (0, True)
