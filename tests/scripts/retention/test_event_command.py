"""`retention event` checks every report before it records the first one, and can be repeated safely."""

import json
import signal
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.model.evaluation import Evaluation
from tasks.retention.event import read_events
from tasks.storage.bucket import Bucket
from tests.archives import FolderEditor, eval_ids
from tests.commands import Shell, finish
from tests.scripts.retention.conftest import ARCHIVED, REVISED, TOMBSTONE

ENDED = "relationship_ended"
HEADER = "eval_id,event,date\n"
COUNTS = {"recorded": 0, "unchanged": 0, "withdrawn": 0, "repeated": 0, "refused": 0}


async def report(shell: Shell, *arguments: str, code: int = 0, stdin: str = "") -> list[Any]:
    """Run the command with --json, and return the lines that it prints."""
    finished = await shell.run("retention", "event", *arguments, "--json", given=stdin)
    assert finished.code == code, finished.err
    return [json.loads(line) for line in finished.out.splitlines()]


async def read_days(bucket: Bucket, *eval_ids: str) -> list[date | None]:
    """Return the recorded day of the event for each evaluation."""
    found = [await read_events(bucket, Evaluation(each, "sandbox")) for each in eval_ids]
    return [each[ENDED].date if ENDED in each else None for each in found]


def list_event_keys(shell: Shell) -> list[str]:
    return [key for key in FolderEditor(shell.folder / "archive").listed() if key.startswith("events/")]


async def test_event_records_the_rows_of_a_list_once(shell: Shell, bucket: Bucket) -> None:
    rows = f"{HEADER}{ARCHIVED},{ENDED},2026-01-31\n{{{TOMBSTONE.upper()}}} , {ENDED} , 2024-02-29\n"

    first = await report(shell, "-", "--by", "records office", stdin=rows)
    again = await report(shell, "-", stdin=rows)

    assert first == [COUNTS | {"recorded": 2}]
    assert again == [COUNTS | {"unchanged": 2}]
    assert await read_days(bucket, ARCHIVED, TOMBSTONE) == [date(2026, 1, 31), date(2024, 2, 29)]
    assert len(list_event_keys(shell)) == 2
    assert (await read_events(bucket, Evaluation(ARCHIVED, "sandbox")))[ENDED].by == "records office"


async def test_event_corrects_and_withdraws_earlier_reports(shell: Shell, bucket: Bucket) -> None:
    (shell.folder / "ids.txt").write_text(f"{ARCHIVED}\n{REVISED}\n")
    one_event = ("--event", ENDED)

    assert await report(shell, "ids.txt", *one_event, "--date", "2026-01-31") == [COUNTS | {"recorded": 2}]
    corrected = await report(shell, "-", stdin=f"{HEADER}{ARCHIVED},{ENDED},\n{REVISED},{ENDED},2026-02-01\n")
    withdrawn = await report(shell, ARCHIVED, REVISED, TOMBSTONE, *one_event, "--withdraw")

    assert corrected == [COUNTS | {"recorded": 1, "withdrawn": 1}]
    assert withdrawn == [COUNTS | {"withdrawn": 1, "unchanged": 2}]
    assert await read_days(bucket, ARCHIVED, REVISED, TOMBSTONE) == [None, None, None]


async def test_event_reads_json_lines_parquet_and_the_list_of_a_run(shell: Shell, bucket: Bucket) -> None:
    lines = json.dumps({"eval_id": ARCHIVED, "event": ENDED, "date": "2026-03-01"})
    table = pa.table({"id": [REVISED], "date": [date(2026, 3, 2)], "event": [ENDED]})
    pq.write_table(table, shell.folder / "events.parquet")

    assert await report(shell, "-", stdin=lines) == [COUNTS | {"recorded": 1}]
    assert await report(shell, "events.parquet") == [COUNTS | {"recorded": 1}]
    assert await read_days(bucket, ARCHIVED, REVISED) == [date(2026, 3, 1), date(2026, 3, 2)]

    from_run = await report(shell, "--run", "q3", "--event", ENDED, "--date", "2026-03-01")
    assert from_run == [COUNTS | {"recorded": 3, "unchanged": 1}]
    assert await read_days(bucket, *eval_ids(4)) == [date(2026, 3, 1)] * 4


async def test_event_refuses_each_bad_row_with_its_line_and_records_the_others(shell: Shell, bucket: Bucket) -> None:
    absent, tomorrow = str(uuid4()), datetime.now(UTC).date() + timedelta(days=1)
    (shell.folder / "events.csv").write_text(
        f"ID;Event;Date\n{ARCHIVED};{ENDED};2026-01-31\nno-id;{ENDED};2026-01-31\n{ARCHIVED};closed;2026-01-31\n"
        f"{REVISED};{ENDED};2025-02-29\n{REVISED};{ENDED};{tomorrow}\n{REVISED};{ENDED};31.01.2026\n"
        f"{REVISED};{ENDED}\n{absent};{ENDED};2026-01-31\n{ARCHIVED};{ENDED};2026-01-31\n"
        f"{TOMBSTONE};{ENDED};2026-01-31\n{TOMBSTONE};{ENDED};\n"
    )

    *refused, counts = await report(shell, "events.csv", code=1)

    today = tomorrow - timedelta(days=1)
    not_valid = "the date is not valid: expected YYYY-MM-DD"
    assert {each["place"].removeprefix("events.csv, line "): each["problem"] for each in refused} == {
        "3": "'no-id' is not a valid evaluation ID: expected a UUID such as 0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10",
        "4": f"the schedule has no such event: expected {ENDED}",
        "5": not_valid,
        "6": f"the date lies in the future: today is {today} (UTC)",
        "7": not_valid,
        "8": "it has no date; an empty one would withdraw the event",
        "9": f"{absent} is not in the archive",
        "11": f"events.csv, line 12 has another date for this event of {TOMBSTONE}",
        "12": f"events.csv, line 11 has another date for this event of {TOMBSTONE}",
    }
    assert counts == COUNTS | {"recorded": 1, "repeated": 1, "refused": 9}
    assert await read_days(bucket, ARCHIVED, REVISED, TOMBSTONE) == [date(2026, 1, 31), None, None]


async def test_event_names_refused_rows_on_standard_error(shell: Shell) -> None:
    finished = await shell.run("retention", "event", "-", given=f"{HEADER}{ARCHIVED},{ENDED},soon\n")

    assert (finished.code, finished.out) == (1, "0 recorded, 0 unchanged, 0 withdrawn, 0 repeated, 1 refused\n")
    assert finished.err == "standard input, line 2: the date is not valid: expected YYYY-MM-DD\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("-",), f"{ARCHIVED},{ENDED},2026-01-31\n", "it has no column event"),
        (("-",), f"eval_id,event\n{ARCHIVED},{ENDED}\n", "it has no column date"),
        (("-",), HEADER, "there is no event in it"),
        (("none.csv",), "", "none.csv"),
        ((ARCHIVED,), "", "IDs need --event"),
        ((ARCHIVED, "--event", ENDED), "", "--event needs either --date or --withdraw"),
        ((ARCHIVED, "--event", ENDED, "--date", "2026-01-31", "--withdraw"), "", "either --date or --withdraw"),
        ((ARCHIVED, "--event", ENDED, "--date", ""), "", "the date is not valid"),
        ((ARCHIVED, "--event", "archived", "--date", "2026-01-31"), "", "the schedule has no such event"),
        (("--event", ENDED, "--withdraw"), "", "no evaluations"),
        (("--run", "q9", "--event", ENDED, "--withdraw"), "", "the archive has no list of run q9"),
        (("-", "--run", "q3"), "", "need --event"),
    ],
)
async def test_event_records_nothing_when_its_arguments_or_its_list_are_invalid(
    shell: Shell, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    finished = await shell.run("retention", "event", *arguments, given=stdin)

    assert (finished.code, finished.out) == (2, "")
    assert message in finished.err
    assert list_event_keys(shell) == []


async def test_event_needs_a_schedule(shell: Shell) -> None:
    del shell.settings["DOCV_RETENTION"]

    finished = await shell.run("retention", "event", ARCHIVED, "--event", ENDED, "--withdraw")

    assert (finished.code, finished.out) == (2, "")
    assert "DOCV_RETENTION is not set" in finished.err


async def test_event_can_be_interrupted(shell: Shell) -> None:
    process = await shell.start("retention", "event", "-")
    assert process.stdin
    assert process.stderr
    # The format of a source is detected from its first MiB, and the command waits for more.
    process.stdin.write(f"{HEADER}{ARCHIVED},{ENDED},2026-01-31\n".encode() + b"no-id,x,2026-01-31\n" * 60_000)
    while b"line 3" not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    finished = await finish(process)

    assert (finished.code, finished.out) == (130, "")
    assert "run the same command to continue" in finished.err
    assert list_event_keys(shell) == []
