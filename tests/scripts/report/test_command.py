"""The command `report` prints the contents of the archive."""

import csv
import io
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.archive_access.evaluation_rows import EvaluationRow
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import RunSource, store_run_list
from tests.commands import Shell

IDS = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(4)]


@pytest.fixture
async def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    """A run in which nothing is archived yet and one evaluation is a dead letter."""
    source = RunSource(name="ids.txt", fingerprint="a" * 64, ids=4, repeated=0, bad=0)
    facts = {"run": "q3", "environment": "sandbox", "account": "default", "refresh": False}
    await store_run_list(LocalBucket(tmp_path / "archive"), IDS, source=source, **facts)  # type: ignore[arg-type]
    ledger = Ledger(redis)
    await ledger.accept(IDS[:2], EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3")))
    (entry,) = await ledger.lease(IDS[:1], token="one")
    await ledger.dead_letter(entry, attempts=6, failure=Failure("service_failed"))
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})


async def test_report_prints_a_csv_row_for_each_evaluation(shell: Shell) -> None:
    finished = await shell.run("report", "q3")
    found = list(csv.DictReader(io.StringIO(finished.out)))
    assert [row["eval_id"] for row in found] == IDS
    assert [(row["outcome"], row["cause"]) for row in found] == [
        ("failed", "service_failed"),
        ("missing", "queued"),
        ("missing", ""),
        ("missing", ""),
    ]
    assert finished.code == 1
    assert "4 evaluations, 4 need attention" in finished.err


async def test_report_prints_a_json_line_for_each_evaluation_with_json(shell: Shell) -> None:
    finished = await shell.run("report", "q3", "--json")
    found = [json.loads(line) for line in finished.out.splitlines()]
    assert [row["eval_id"] for row in found] == IDS
    assert found[3] == EvaluationRow(IDS[3], "missing").as_json()


async def test_kept_columns_of_the_customers_file_are_added_to_the_report_and_stored_nowhere_else(shell: Shell) -> None:
    lines = [f"customer-{number},{eval_id}" for number, eval_id in enumerate(IDS)]
    (shell.folder / "customers.csv").write_text("\n".join(["customer,eval_id", *reversed(lines)]))
    finished = await shell.run("report", "q3", "--keep", "customer", "--from", "customers.csv")
    rows = list(csv.DictReader(io.StringIO(finished.out)))
    assert [(row["eval_id"], row["customer"]) for row in rows] == [
        (eval_id, f"customer-{number}") for number, eval_id in enumerate(IDS)
    ]
    await shell.run("report", "q3", "--keep", "customer", "--from", "customers.csv", "--html", "q3.html")
    assert "<td>customer-3</td>" in (shell.folder / "q3.html").read_text("utf-8")
    kept = [path for path in shell.folder.rglob("*") if path.is_file() and b"customer-1" in path.read_bytes()]
    assert {path.name for path in kept} == {"customers.csv", "q3.html"}


async def test_report_writes_an_html_page_with_html(shell: Shell) -> None:
    finished = await shell.run("report", "q3", "--html", "q3.html")
    assert (finished.code, finished.out) == (1, "")
    assert "q3.html: 4 evaluations" in finished.err
    assert "4 of 4 evaluations need attention" in (shell.folder / "q3.html").read_text("utf-8")


async def test_an_erased_evaluation_is_reported_as_erased_and_needs_no_attention(shell: Shell) -> None:
    shell.settings |= {"DOCV_LEASE_SECONDS": "2", "DOCV_PUT_SECONDS": "1"}
    assert (await shell.run("erase", *IDS, "--reason", "request 4711", "--yes")).code == 0
    finished = await shell.run("report", "q3", "--json")
    assert [json.loads(line)["outcome"] for line in finished.out.splitlines()] == ["erased"] * 4
    assert (finished.code, "4 evaluations, 0 need attention" in finished.err) == (0, True)
    await shell.run("report", "q3", "--html", "q3.html")
    page = (shell.folder / "q3.html").read_text("utf-8")
    assert '<td>erased</td><td class="figure">4</td>' in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody-knows-it",), "the archive has no list of run nobody-knows-it"),
        (("nobody-knows-it",), "runs named over HTTP or Celery have none"),
        (("q3", "--keep", "customer"), "--keep and --from need each other"),
        (("../q3",), "the name of a run has"),
        (("q3", "--html", "nowhere/q3.html"), "nowhere/q3.html"),
    ],
)
async def test_report_explains_an_error_without_a_traceback(
    shell: Shell, arguments: tuple[str, ...], message: str
) -> None:
    finished = await shell.run("report", *arguments)
    assert finished.code in {1, 2}
    assert message in finished.err
    assert "Traceback" not in finished.err
