"""`verify`, as a user runs it."""

import csv
import io
import json
from pathlib import Path

import pytest

from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket
from tests.archives import PREFIX, eval_ids, fill
from tests.commands import Shell
from tests.conftest import S3
from worker.clients.archive import open_archive
from worker.config.settings import Settings

IDS = eval_ids(20)


@pytest.fixture
async def shell(tmp_path: Path) -> Shell:
    await fill(LocalBucket(tmp_path / "archive"), IDS)
    return Shell(tmp_path)


def spoil(shell: Shell, eval_id: str) -> str:
    path = next((shell.folder / "archive" / "sandbox" / eval_id).rglob("*.jpg"))
    path.write_bytes(bytes(path.stat().st_size))
    return path.relative_to(shell.folder / "archive").as_posix()


async def test_an_archive_that_is_whole_has_no_difference(shell: Shell) -> None:
    finished = await shell.run("verify", "--grace", "0")
    assert (finished.code, finished.out) == (0, "eval_id,key,problem,detail\n")
    assert "20 evaluations" in finished.err
    assert "2 in quarantine; 1 lists of runs; 0 differences" in finished.err
    assert {path.name for path in shell.folder.iterdir()} == {"archive"}


async def test_every_difference_is_a_row_or_a_line(shell: Shell) -> None:
    key = spoil(shell, IDS[0])
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


async def test_only_what_a_list_names_is_looked_at(shell: Shell) -> None:
    spoil(shell, IDS[0])
    unknown = eval_ids(1, seed=9)[0]
    (shell.folder / "ids.txt").write_text("\n".join(IDS[1:5]))
    (shell.folder / "more.csv").write_text(f"name,id\na,{IDS[0]}\nb,{unknown}\nc,nobody\n")
    assert (await shell.run("verify", "ids.txt")).code == 0
    finished = await shell.run("verify", "more.csv", "--column", "id", "--json")
    assert finished.code == 1
    assert [json.loads(line)["problem"] for line in finished.out.splitlines()] == [
        "content_differs",
        "manifest_missing",
    ]
    assert "line 4: 'nobody' is no evaluation ID" in finished.err
    (shell.folder / "bad.txt").write_text(f"{IDS[1]}\nnobody\n")
    assert (await shell.run("verify", "bad.txt")).code == 1


async def test_a_sample_or_what_is_new_can_be_looked_at(shell: Shell) -> None:
    spoil(shell, IDS[0])
    assert (await shell.run("verify", "--since", "2026-12-01")).code == 0
    assert (await shell.run("verify", "--since", "2026-11-01")).code == 1
    sampled = await shell.run("verify", "--sample", "50%")
    assert 2 <= int(sampled.err.split(" evaluations")[0].split()[-1]) <= 18


async def test_an_archive_in_s3_is_verified_the_same_way(s3: S3, tmp_path: Path) -> None:
    url = f"s3://{s3.bucket}/{PREFIX}"
    store = open_archive(Settings(archive_url=url, s3_endpoint=s3.endpoint))
    await fill(open_bucket(store), IDS[:5])
    shell = Shell(tmp_path, {"DOCV_ARCHIVE_URL": url, "DOCV_S3_ENDPOINT": s3.endpoint})
    finished = await shell.run("verify", "--checksums-only", "--grace", "0")
    assert (finished.code, finished.err.count("\n")) == (0, 1), finished.err
    assert ", 0 B read back" in finished.err
    place = next(
        each["Key"] for each in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"] if "jpg" in each["Key"]
    )
    s3.client.delete_object(Bucket=s3.bucket, Key=place)
    gone = await shell.run("verify", "--json")
    assert (gone.code, json.loads(gone.out)["problem"]) == (1, "object_missing")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--checksums-only", "--sizes-only"), 2, "not both"),
        (("--sample", "0%"), 2, "is no part of all"),
        (("--sample", "five"), 2, "is no part of all"),
        (("--since", "yesterday"), 2, "--since"),
        (("missing.txt",), 2, "missing.txt"),
        ((), 3, "there is no archive here that can be read"),
    ],
)
async def test_what_cannot_be_verified_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    finished = await Shell(tmp_path).run("verify", *arguments)
    assert finished.code == code, finished.err
    assert said in finished.err
    assert "Traceback" not in finished.err
    assert not (tmp_path / "archive").exists()
