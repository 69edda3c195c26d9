"""IDs are gathered from lists of any length."""

import csv
import gzip
import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from scripts.ids.errors import BadSource
from scripts.ids.gather import Gathered, gather
from worker.config.settings import Settings

IDS = [str(UUID(int=number << 64)) for number in range(100)]


@pytest.fixture
def rejects(tmp_path: Path) -> Path:
    return tmp_path / "rejects.csv"


def _gather(content: str | bytes, rejects: Path, settings: Settings, **overrides: Any) -> Gathered:
    source = rejects.with_name("list")
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {"column": None, "limit": None, "sample": None} | overrides
    return gather(str(source), rejects=rejects, settings=settings, **options)


def test_gather_returns_each_id_once_and_writes_rejects(rejects: Path, settings: Settings) -> None:
    text = f"name,eval_id\na,{IDS[1]}\nb,\nc,{IDS[0]}\nd,=nonsense\ne,{IDS[1].upper()}\n"
    with _gather(text, rejects, settings) as gathered:
        assert list(gathered.ids) == [IDS[1], IDS[0]]
        assert (gathered.bad, gathered.repeated, gathered.rejects) == (2, 1, rejects)
    with rejects.open(encoding="utf-8-sig", newline="") as file:
        header, empty, nonsense = csv.reader(file)
    assert header == ["line", "why", "text"]
    assert empty[0] == "3"
    assert empty[1].startswith("it is empty")
    assert (nonsense[0], nonsense[2]) == ("5", "'=nonsense")


def test_rejects_are_removed_when_the_list_was_fixed(rejects: Path, settings: Settings) -> None:
    with _gather(f"{IDS[0]}\nbad", rejects, settings):
        assert rejects.exists()
    with _gather(f"{IDS[0]}\n", rejects, settings) as gathered:
        assert gathered.rejects is None
    assert not rejects.exists()


def test_every_bad_line_is_in_the_rejects(rejects: Path, settings: Settings) -> None:
    with _gather("bad\n" * 5_000 + IDS[0], rejects, settings) as gathered:
        assert gathered.bad == 5_000
    assert rejects.read_text().count("\n") == 5_001


def test_a_limit_counts_unique_ids_and_stops_reading(rejects: Path, settings: Settings) -> None:
    text = "\n".join([IDS[0], IDS[0], "bad", IDS[1], IDS[2], "bad", IDS[3]])
    with _gather(text, rejects, settings, limit=3) as gathered:
        assert list(gathered.ids) == IDS[:3]
        assert (gathered.bad, gathered.repeated) == (1, 1)
    with _gather(text, rejects, settings, limit=100) as gathered:
        assert list(gathered.ids) == IDS[:4]


def test_a_sample_does_not_depend_on_the_order_and_keeps_it(rejects: Path, settings: Settings) -> None:
    smallest = sorted(IDS, key=lambda each: hashlib.sha256(each.encode()).digest())[:10]
    with _gather("\n".join(IDS + IDS[:5]), rejects, settings, sample=10) as gathered:
        assert list(gathered.ids) == [each for each in IDS if each in smallest]
        assert gathered.repeated == 5
    with _gather("\n".join(IDS[::-1]), rejects, settings, sample=10) as gathered:
        assert list(gathered.ids) == [each for each in IDS[::-1] if each in smallest]


def test_a_sample_is_taken_from_the_limited_list_and_may_be_all_of_it(rejects: Path, settings: Settings) -> None:
    with _gather("\n".join(IDS), rejects, settings, sample=1000) as gathered:
        assert list(gathered.ids) == IDS
    with _gather("\n".join(IDS), rejects, settings, limit=5, sample=2) as gathered:
        assert len(gathered.ids) == 2
        assert set(gathered.ids) < set(IDS[:5])


def test_the_fingerprint_depends_on_the_ids_and_not_on_the_format(rejects: Path, settings: Settings) -> None:
    with (
        _gather("\n".join(IDS), rejects, settings) as text,
        _gather("\n".join(f'"{each.upper()}"' for each in [*IDS, IDS[0]]), rejects, settings) as strings,
    ):
        assert text.ids.fingerprint == strings.ids.fingerprint


@pytest.mark.parametrize("content", ["", "\n\n", "eval_id\n", gzip.compress(b"", mtime=0)])
def test_gather_raises_bad_source_when_there_is_no_id(rejects: Path, settings: Settings, content: str | bytes) -> None:
    with pytest.raises(BadSource, match=r"list: there is no evaluation ID in it$"):
        _gather(content, rejects, settings)


def test_gather_names_the_rejects_when_all_lines_are_bad(rejects: Path, settings: Settings) -> None:
    with pytest.raises(BadSource, match=r"no evaluation ID in it; .*rejects.* says what is wrong with its 2 lines"):
        _gather("bad\nbad", rejects, settings)


def test_rejects_are_kept_when_the_list_cannot_be_opened(rejects: Path, settings: Settings) -> None:
    rejects.write_text("from an earlier run")
    with pytest.raises(BadSource, match="No such file"):
        gather("no-such-file", column=None, limit=None, sample=None, rejects=rejects, settings=settings)
    assert rejects.exists()


def test_gather_refuses_to_overwrite_the_list_with_its_rejects(rejects: Path, settings: Settings) -> None:
    rejects.write_text("bad\n")
    with pytest.raises(BadSource, match="would overwrite this list"):
        gather(str(rejects), column=None, limit=None, sample=None, rejects=rejects, settings=settings)
    assert rejects.read_text() == "bad\n"


def test_gather_leaves_nothing_on_disk_after_a_long_list(rejects: Path, settings: Settings) -> None:
    ids = [str(uuid4()) for _ in range(40_000)]
    with _gather("\n".join(ids), rejects, settings) as gathered:
        assert list(gathered.ids) == ids
    assert list((settings.private_dir / "spool").iterdir()) == []
