"""The command `verify`: its output, its exit code, and its arguments."""

import csv
import io
import json
import signal
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from scripts.console.exit_codes import INTERRUPTED
from tasks.ledger.last_success import LastSuccess, NightlyCommand
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket
from tests.archives import PREFIX, eval_ids, fill
from tests.commands import Shell, finish, wait_until
from tests.conftest import S3
from tests.riskos import ReceivedRequest, Reply, Then, s3_error, serve_requests
from worker.clients.archive import open_archive
from worker.config.settings import Settings

IDS = eval_ids(20)


@pytest.fixture
async def shell(tmp_path: Path) -> Shell:
    await fill(LocalBucket(tmp_path / "archive"), IDS)
    return Shell(tmp_path)


def damage_document(shell: Shell, eval_id: str) -> str:
    path = next((shell.folder / "archive" / "sandbox" / eval_id).rglob("*.jpg"))
    path.write_bytes(bytes(path.stat().st_size))
    return path.relative_to(shell.folder / "archive").as_posix()


async def test_verify_finds_no_difference_in_an_intact_archive(shell: Shell) -> None:
    finished = await shell.run("verify", "--grace", "0")
    assert (finished.code, finished.out) == (0, "eval_id,key,problem,detail\n")
    assert "20 evaluations" in finished.err
    assert "2 in quarantine; 1 run list; 0 differences" in finished.err
    assert {path.name for path in shell.folder.iterdir()} == {"archive"}


async def test_verify_records_its_success_in_redis_only_for_the_whole_archive(
    shell: Shell, redis: Redis, redis_url: str
) -> None:
    shell.settings |= {"DOCV_REDIS_URL": redis_url}
    for arguments in (("-",), ("--since", "2020-01-01")):
        assert (await shell.run("verify", *arguments, given="\n".join(IDS))).code == 0
        assert await LastSuccess(redis, NightlyCommand.VERIFY).get() == 0
    assert (await shell.run("verify", "--sample", "50%")).code == 0
    at = await LastSuccess(redis, NightlyCommand.VERIFY).get()
    assert at > 0
    await redis.delete("docv:verify:last_success")
    (shell.folder / "archive" / "sandbox" / IDS[0] / "manifest.json").write_text("{")
    assert (await shell.run("verify")).code == 1
    assert await LastSuccess(redis, NightlyCommand.VERIFY).get() == 0


async def test_verify_succeeds_when_redis_does_not_answer(shell: Shell) -> None:
    shell.settings |= {"DOCV_REDIS_URL": "redis://127.0.0.1:9/0"}
    finished = await shell.run("verify")
    assert (finished.code, "Redis did not record this success" in finished.err) == (0, True)


async def test_verify_prints_each_difference_as_a_csv_row_or_a_json_line(shell: Shell) -> None:
    key = damage_document(shell, IDS[0])
    (shell.folder / "archive" / "=added").write_text("x")
    rows = await shell.run("verify", "--grace", "0")
    lines = await shell.run("verify", "--grace", "0", "--json")
    assert (rows.code, lines.code) == (1, 1)
    found = list(csv.DictReader(io.StringIO(rows.out)))
    assert [(row["eval_id"], row["key"], row["problem"]) for row in found] == [
        ("", "'=added", "orphan"),
        (IDS[0], key, "content_differs"),
    ]
    assert [list(json.loads(line)) for line in lines.out.splitlines()] == [["eval_id", "key", "problem", "detail"]] * 2
    assert "2 differences" in rows.err
    assert (await shell.run("verify", "--grace", "0", "--sizes-only", "--sample", "0.0001%")).code == 1


@pytest.mark.parametrize("statuses", [[200], [500, 500, 500]])
async def test_verify_notifies_of_differences_and_reports_a_receiver_that_fails(
    shell: Shell, statuses: list[int]
) -> None:
    received: list[dict[str, object]] = []

    async def receive(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response(status=statuses.pop(0))

    application = web.Application()
    application.router.add_post("/hook", receive)
    damage_document(shell, IDS[0])
    failed = len(statuses) > 1
    async with TestServer(application) as server:
        shell.settings["DOCV_NOTIFY_URL"] = str(server.make_url("/hook"))
        finished = await shell.run("verify", "--grace", "0")
    assert finished.code == 1
    assert ("the notification was not delivered: the receiver answered with status 500" in finished.err) == failed
    assert not statuses
    assert {each["event"] for each in received} == {"verify_differences"}
    assert (received[-1]["count"], received[-1]["problems"]) == (1, {"content_differs": 1})
    assert len({each["id"] for each in received}) == 1


async def test_verify_checks_only_the_evaluations_of_a_list(shell: Shell) -> None:
    damage_document(shell, IDS[0])
    unknown = eval_ids(1, seed=9)[0]
    (shell.folder / "ids.txt").write_text("\n".join(IDS[1:5]))
    (shell.folder / "more.csv").write_text(f"name,id\na,{IDS[0]}\nb,{unknown}\nc,nobody\n")
    assert (await shell.run("verify", "ids.txt")).code == 0
    assert not (shell.folder / ".docv-archive").exists()
    finished = await shell.run("verify", "more.csv", "--column", "id", "--json")
    assert finished.code == 1
    assert [json.loads(line)["problem"] for line in finished.out.splitlines()] == [
        "content_differs",
        "manifest_missing",
    ]
    assert "line 4: 'nobody' is not a valid evaluation ID" in finished.err
    (shell.folder / "bad.txt").write_text(f"{IDS[1]}\nnobody\n")
    assert (await shell.run("verify", "bad.txt")).code == 1


async def test_verify_checks_a_sample_or_recent_evaluations(shell: Shell) -> None:
    damage_document(shell, IDS[0])
    assert (await shell.run("verify", "--since", "2026-12-01")).code == 0
    assert (await shell.run("verify", "--since", "2026-11-01")).code == 1
    sampled = await shell.run("verify", "--sample", "50%")
    assert 2 <= int(sampled.err.split(" evaluations")[0].split()[-1]) <= 18


async def test_verify_works_the_same_way_in_s3(s3: S3, tmp_path: Path) -> None:
    url = f"s3://{s3.bucket}/{PREFIX}"
    store = open_archive(Settings(archive_url=url, s3_endpoint=s3.endpoint))
    await fill(open_bucket(store), IDS[:5])
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    finished = await shell.run("verify", "--checksums-only", "--grace", "0")
    assert (finished.code, finished.err.count("\n")) == (0, 1), finished.err
    assert ", 0 B read back" in finished.err
    key = next(each["Key"] for each in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"] if "jpg" in each["Key"])
    s3.client.delete_object(Bucket=s3.bucket, Key=key)
    gone = await shell.run("verify", "--json")
    assert (gone.code, json.loads(gone.out)["problem"]) == (1, "object_missing")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--checksums-only", "--sizes-only"), 2, "not both"),
        (("--sample", "0%"), 2, "is not a valid share"),
        (("--sample", "five"), 2, "is not a valid share"),
        (("--since", "yesterday"), 2, "--since"),
        (("missing.txt",), 2, "missing.txt"),
        ((), 3, "no readable archive was found here"),
    ],
)
async def test_verify_reports_invalid_arguments_in_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    finished = await Shell(tmp_path).run("verify", *arguments)
    assert finished.code == code, finished.err
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("answers", [0, 1])
async def test_verify_ends_on_ctrl_c_while_s3_does_not_answer(tmp_path: Path, answers: int) -> None:
    """The first request checks that the bucket exists. The second one lists it."""

    def answer(_: ReceivedRequest) -> Reply:
        return Reply(s3_error(404, "NoSuchKey")) if len(server.requests) <= answers else Reply(b"", Then.HANG)

    async with serve_requests(answer) as server:
        settings = {"DOCV_ARCHIVE_URL": "s3://archive", "DOCV_S3_ENDPOINT": server.url}
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
        process = await Shell(tmp_path, settings | keys).start("verify")
        await wait_until(lambda: len(server.requests) > answers, process)
        process.send_signal(signal.SIGINT)
        finished = await finish(process, seconds=30)
    assert finished.code == INTERRUPTED
    assert "Stopped before the end" in finished.err
