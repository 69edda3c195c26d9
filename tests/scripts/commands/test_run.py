"""`run` with real processes: command, worker, Redis, RiskOS over HTTP, S3 over HTTP or a folder."""

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from jsonschema import Draft202012Validator

from scripts.simulator.bundles import documents_of
from scripts.simulator.expected import demo_ids, expected_outcome
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for, scenario_of
from scripts.simulator.server import Simulator, start_simulator
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.storage.manifest import schema
from tests.commands import KEY, Shell, finish, wait_until
from tests.conftest import S3
from tests.riskos import bundle_reply, json_reply, serve_replies
from tests.zips import zip_of

PLAIN = tuple(LAYOUTS)


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000)) as simulator:
        yield simulator


@pytest.fixture
def shell(riskos: Simulator, tmp_path: Path) -> Shell:
    return Shell(
        tmp_path,
        {
            "DOCV_API_KEY": KEY,
            "DOCV_RISKOS_URL": riskos.url,
            "DOCV_RATE": "200",
            "DOCV_DAILY_QUOTA": "100000",
            "DOCV_ATTEMPTS": "2",
            "DOCV_RETRY_SECONDS": "1",
            "DOCV_LOG_LEVEL": "DEBUG",
        },
    )


def count_expected(eval_ids: list[str]) -> dict[str, int]:
    counts = Counter(expected_outcome(scenario_of(eval_id)).value for eval_id in eval_ids)
    return {outcome.value: counts[outcome.value] for outcome in Outcome}


async def test_files_of_a_run_are_private_even_in_a_public_folder(shell: Shell) -> None:
    state = shell.folder / "state"
    state.mkdir()
    state.chmod(0o2777)  # like an emptyDir of Kubernetes
    shell.settings["DOCV_STATE_DIR"] = "state"
    finished = await shell.run("run", "--json", eval_id_for(PLAIN[0], 1))
    assert finished.code == 0, finished.err
    (private,) = state.iterdir()
    assert f"the log of the worker is {private.relative_to(shell.folder)}/worker.log" in finished.err
    names = {path.name for path in private.rglob("*")}
    assert names >= {"worker.log", "appendonlydir", "spool"}
    assert [path for path in state.rglob("*") if path.stat().st_mode & 0o077] == []


async def test_notifications_of_a_run_and_its_dead_letters_are_sent_before_the_worker_stops(shell: Shell) -> None:
    received: list[str] = []

    async def receive(request: web.Request) -> web.Response:
        received.append(await request.text())
        return web.Response()

    application = web.Application()
    application.router.add_post("/hook", receive)
    eval_ids = [eval_id_for(PLAIN[0], 1), eval_id_for(Scenario.FORBIDDEN_ALWAYS, 1)]
    async with TestServer(application) as server:
        shell.settings |= {"DOCV_NOTIFY_URL": str(server.make_url("/hook")), "DOCV_ATTEMPTS": "1"}
        finished = await shell.run("run", *eval_ids)
    assert finished.code == 1
    assert sorted(json.loads(each)["event"] for each in received) == ["dead_letters", "run_finished"]
    assert not any(text in each for each in received for text in (*eval_ids, KEY))


async def test_mixed_evaluations_end_in_s3_with_the_expected_outcomes(shell: Shell, riskos: Simulator, s3: S3) -> None:
    eval_ids = demo_ids(90)
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))
    shell.settings |= {
        "DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kyc",
        "DOCV_S3_ENDPOINT": s3.endpoint,
        "DOCV_TAGS": "team=kyc",
    }
    with socket.create_server(("127.0.0.1", 0)) as service:
        # A worker that runs as a service has the port of the settings, so the worker of `run` uses another one.
        shell.settings["DOCV_METRICS_PORT"] = str(service.getsockname()[1])
        first = await shell.run("run", "ids.txt", "--json")

    summary = json.loads(first.out)
    assert summary["outcomes"] == count_expected(eval_ids)
    assert (summary["total"], summary["pending"]) == (90, 0)
    assert summary["dead_letters"] == summary["outcomes"]["failed"] > 0
    assert first.code == 1  # some were unreadable, some failed
    for eval_id in eval_ids:
        if expected_outcome(scenario_of(eval_id)) is Outcome.NO_DOCUMENTS:
            assert riskos.stats().by_evaluation[eval_id] == 1
    assert riskos.stats().redirects_followed == 0
    await asyncio.to_thread(check_bucket, s3, eval_ids)

    requests = riskos.stats().requests
    second = await shell.run("run", "ids.txt", "--json")

    outcomes = json.loads(second.out)["outcomes"]
    assert outcomes["unchanged"] == 90 - outcomes["failed"]
    not_recorded = {"unchanged", "failed", "cancelled"}
    before = {outcome: count for outcome, count in count_expected(eval_ids).items() if outcome not in not_recorded}
    assert json.loads(second.out)["unchanged_outcomes"] == before | {"erased": 0, "disposed": 0}
    failing = [eval_id for eval_id in eval_ids if expected_outcome(scenario_of(eval_id)) is Outcome.FAILED]
    assert outcomes["failed"] == len(failing)
    requests_for_failing = sum(riskos.stats().by_evaluation[eval_id] for eval_id in failing)
    assert riskos.stats().requests - requests == requests_for_failing / 2


SCENARIOS = {
    "archived": Scenario.DOCUMENTED,
    "no_documents": Scenario.NO_DOCUMENTS,
    "not_found": Scenario.NOT_FOUND,
    "rejected": Scenario.REJECTED,
    "unreadable": Scenario.GARBAGE_ALWAYS,
}


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("archived", "no_documents"), 0),
        (("archived", "not_found"), 1),
        (("no_documents", "rejected"), 1),
        (("unreadable",), 1),
    ],
)
async def test_a_repeated_run_reports_unchanged_evaluations_and_exits_as_before(
    shell: Shell, outcomes: tuple[str, ...], code: int
) -> None:
    eval_ids = [eval_id_for(SCENARIOS[outcome], 9_000) for outcome in outcomes]
    first = await shell.run("run", *eval_ids, "--json")
    second = await shell.run("run", *eval_ids, "--json")
    assert (first.code, second.code) == (code, code)
    summary = json.loads(second.out)
    assert summary["outcomes"] == dict.fromkeys(Outcome, 0) | {"unchanged": len(outcomes)}
    assert summary["unchanged_outcomes"] == dict.fromkeys(ManifestOutcome, 0) | dict.fromkeys(outcomes, 1)


async def test_a_refresh_is_unchanged_when_riskos_has_deleted_the_documents(shell: Shell) -> None:
    eval_id, gone = eval_id_for(Scenario.DOCUMENTED, 1), json_reply(400, b'{"message": "No Documents Found"}')
    async with serve_replies(bundle_reply(zip_of({"front.jpg": b"front"})), gone) as server:
        shell.settings["DOCV_RISKOS_URL"] = server.url
        assert (await shell.run("run", eval_id)).code == 0
        again = await shell.run("run", eval_id, "--refresh", "--json")
    summary = json.loads(again.out)
    assert (again.code, summary["outcomes"]["unchanged"], summary["unchanged_outcomes"]["archived"]) == (0, 1, 1)
    (shell.folder / "ids.txt").write_text(eval_id)
    (row,) = (json.loads(line) for line in (await shell.run("audit", "ids.txt", "--json")).out.splitlines())
    assert (row["outcome"], row["documents"], row["at_source"]) == ("archived", 1, "gone")


async def test_a_refresh_of_some_outcomes_does_not_touch_the_others(shell: Shell, riskos: Simulator) -> None:
    eval_ids = {outcome: eval_id_for(scenario, 9_100) for outcome, scenario in SCENARIOS.items()}
    await shell.run("run", *eval_ids.values())
    before = dict(riskos.stats().by_evaluation)
    again = await shell.run("run", *eval_ids.values(), "--refresh-outcome", "no_documents,not_found,rejected", "--json")
    assert json.loads(again.out)["outcomes"]["unchanged"] == len(SCENARIOS)
    requested = {outcome for outcome, each in eval_ids.items() if riskos.stats().by_evaluation[each] > before[each]}
    assert requested == {"no_documents", "not_found", "rejected"}


@pytest.mark.parametrize("command", ["run", "backfill", "enqueue"])
async def test_an_unknown_outcome_to_refresh_is_reported_with_the_valid_ones(shell: Shell, command: str) -> None:
    refused = await shell.run(command, "ids.txt", "--refresh-outcome", "no_documents,none")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.splitlines()[-1] == (
        "Error: Invalid value for '--refresh-outcome': 'none' is not a valid outcome: "
        "expected some of archived, no_documents, not_found, rejected, withheld, unreadable"
    )


def check_bucket(s3: S3, eval_ids: list[str]) -> None:
    pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket)
    keys = {item["Key"] for page in pages for item in page.get("Contents", [])}
    assert any(key.startswith("kyc/runs/sandbox/run-") for key in keys)  # for `report`
    keys = {key for key in keys if not key.startswith("kyc/runs/")}
    checker, named = Draft202012Validator(schema()), set()
    for eval_id in eval_ids:
        expected, key = expected_outcome(scenario_of(eval_id)), f"kyc/sandbox/{eval_id}/manifest.json"
        if expected is Outcome.FAILED:
            assert key not in keys
            continue
        manifest = json.loads(s3.client.get_object(Bucket=s3.bucket, Key=key)["Body"].read())
        checker.validate(manifest)
        named.add(key)
        revision = 2 if scenario_of(eval_id).has_damaged_bundle else 1
        assert (manifest["eval_id"], manifest["outcome"], manifest["revision"]) == (eval_id, expected.value, revision)
        named |= {f"kyc/{document['key']}" for document in manifest["documents"]}
        named |= {f"kyc/sandbox/{eval_id}/revisions/{number}.json" for number in range(1, revision)}
        named |= {f"kyc/quarantine/sandbox/{eval_id}/{each['sha256']}.zip" for each in manifest["quarantined"]}
        if expected is Outcome.ARCHIVED:
            served = documents_of(eval_id, 3_000)
            assert {item["name"]: item["sha256"] for item in manifest["documents"]} == {
                name: hashlib.sha256(data).hexdigest() for name, data in served.items()
            }
    assert keys == named
    example = next(key for key in sorted(keys) if "/document_front/" in key)
    check_one_object(s3, example)


def check_one_object(s3: S3, key: str) -> None:
    _, environment, eval_id, kind, filename = key.split("/")
    got = s3.client.get_object(Bucket=s3.bucket, Key=key, ChecksumMode="ENABLED")
    sha256 = hashlib.sha256(got["Body"].read()).hexdigest()
    assert filename == f"{sha256}.jpg"
    assert got["ContentType"] == "image/jpeg"
    assert got["ChecksumSHA256"]
    archived_at = got["Metadata"].pop("archived-at")
    assert archived_at.endswith("Z")
    assert got["Metadata"] == {"eval-id": eval_id, "sha256": sha256, "document-kind": kind}
    tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key=key)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "environment": environment,
        "document-kind": kind,
        "source": "user_uploaded",
        "team": "kyc",
    }


async def test_an_interrupted_run_continues_with_the_same_command(shell: Shell, riskos: Simulator) -> None:
    eval_ids = [eval_id_for(PLAIN[number % len(PLAIN)], 5_000 + number) for number in range(120)]
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))
    shell.settings["DOCV_RATE"] = "30"
    process = await shell.start("run", "ids.txt")
    await wait_until(lambda: riskos.stats().requests >= 30, process)
    process.send_signal(signal.SIGINT)
    stopped = await finish(process)
    assert stopped.code == 130
    assert "No evaluation is lost" in stopped.err
    assert "Traceback" not in stopped.err
    await check_no_process_is_left(shell.folder)

    shell.settings["DOCV_RATE"] = "200"
    again = await shell.run("run", "ids.txt", "--json")

    outcomes = json.loads(again.out)["outcomes"]
    assert outcomes["archived"] + outcomes["unchanged"] == 120
    assert again.code == 0
    assert len(list((shell.folder / "archive").rglob("manifest.json"))) == 120
    assert max(riskos.stats().by_evaluation[eval_id] for eval_id in eval_ids) <= 2


async def test_a_killed_run_leaves_no_process_and_continues(shell: Shell, riskos: Simulator) -> None:
    eval_ids = [eval_id_for(PLAIN[number % len(PLAIN)], 6_000 + number) for number in range(60)]
    shell.settings |= {"DOCV_RATE": "30", "DOCV_LEASE_SECONDS": "3"}
    process = await shell.start("run", *eval_ids)
    await wait_until(lambda: riskos.stats().requests >= 15, process)
    process.kill()
    await process.wait()
    await check_no_process_is_left(shell.folder)

    again = await shell.run("run", *eval_ids, "--json")

    assert json.loads(again.out)["pending"] == 0
    assert len(list((shell.folder / "archive").rglob("manifest.json"))) == 60


async def test_a_killed_worker_is_replaced(shell: Shell, riskos: Simulator) -> None:
    eval_ids = [eval_id_for(PLAIN[number % len(PLAIN)], 7_000 + number) for number in range(400)]
    shell.settings |= {"DOCV_RATE": "40", "DOCV_LEASE_SECONDS": "3"}
    process = await shell.start("run", *eval_ids, "--json")
    await wait_until(lambda: riskos.stats().requests >= 20, process)
    for worker in find_processes(shell.folder):
        if "worker" in worker.cmdline():
            worker.kill()
    before = riskos.stats().requests
    # These are more than were in flight, so a new worker sends some of them.
    await wait_until(lambda: riskos.stats().requests >= before + 100, process)
    process.send_signal(signal.SIGINT)
    assert (await finish(process)).code == 130


async def test_a_key_that_never_worked_is_reported_at_once_and_the_ids_wait(shell: Shell, riskos: Simulator) -> None:
    eval_ids = [eval_id_for(PLAIN[0], 8_000 + number) for number in range(20)]
    shell.settings["DOCV_API_KEY"] = "another-key-than-that"
    refused = await shell.run("run", *eval_ids)
    assert refused.code == 3
    assert "RiskOS answered 401: the API key is not accepted" in refused.err
    assert "Traceback" not in refused.err

    shell.settings["DOCV_API_KEY"] = KEY
    fixed = await shell.run("run", *eval_ids, "--json")
    assert json.loads(fixed.out)["outcomes"]["archived"] == 20
    assert fixed.code == 0


async def test_bad_ids_are_reported_with_their_lines_and_the_others_are_archived(shell: Shell) -> None:
    good = eval_id_for(PLAIN[0], 9_000)
    bad = ["{" + good, "urn:uuid:" + good, "\u00a0" + good, "\uff11" + good[1:], "x" * 10_000_000]
    (shell.folder / "ids.txt").write_text("\n".join([*bad, good]))
    finished = await shell.run("run", "ids.txt", "--json")
    assert json.loads(finished.out)["outcomes"]["archived"] == 1
    for number in range(1, len(bad) + 1):
        assert f"ids.txt, line {number}: " in finished.err
    assert len(finished.err) < 5_000
    assert finished.code == 1


async def test_the_key_is_not_in_logs_process_lists_or_redis(shell: Shell, riskos: Simulator) -> None:
    riskos.change(latency_ms=300)
    process = await shell.start("run", *demo_ids(60))
    await wait_until(lambda: riskos.stats().requests >= 5, process)
    for each in find_processes(shell.folder):
        assert KEY not in " ".join(each.cmdline())
    finished = await finish(process)
    assert KEY not in finished.out + finished.err
    for path in shell.folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


async def check_no_process_is_left(folder: Path) -> None:
    async with asyncio.timeout(60):
        while find_processes(folder):
            await asyncio.sleep(0.1)


def find_processes(folder: Path) -> list[psutil.Process]:
    """Return the running processes of this user in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        here = process.info["cwd"] == str(folder) or str(folder) in command
        if here and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
