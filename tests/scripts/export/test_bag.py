"""A bag is checked here by the rules of RFC 8493, without the code that writes it."""

import hashlib
import re
import stat
from pathlib import Path

import pytest

from scripts.export.bag import close_bag
from scripts.export.staging import make_folders
from tasks.storage.manifest import archiver

FILES = {"data/id/a b.jpg": b"picture", "data/id/sub/日本.txt": b"", "data/id/manifest.json": b"{}"}


def find_faults(bag: Path) -> list[str]:
    """Return the faults of a bag (RFC 8493, chapter 3)."""
    declared = (bag / "bagit.txt").read_bytes().decode()
    found = [] if declared == "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n" else ["bagit.txt"]
    payload = {path.relative_to(bag).as_posix() for path in (bag / "data").rglob("*") if path.is_file()}
    listed = {name: digest for digest, name in read_lines(bag / "manifest-sha256.txt")}
    found += [f"{name}: listed or there, not both" for name in payload ^ set(listed)]
    tags = {path.name for path in bag.iterdir() if path.is_file()} - {"tagmanifest-sha256.txt"}
    listed_tags = {name: digest for digest, name in read_lines(bag / "tagmanifest-sha256.txt")}
    found += [f"{name}: no tag file, or not listed" for name in tags ^ set(listed_tags)]
    for name, digest in (listed | listed_tags).items():
        if hashlib.sha256((bag / name).read_bytes()).hexdigest() != digest:
            found.append(f"{name}: other bytes")
    oxum = re.search(r"^Payload-Oxum: (\d+)\.(\d+)$", (bag / "bag-info.txt").read_text(), re.MULTILINE)
    sizes = [(bag / name).stat().st_size for name in payload]
    if not oxum or (int(oxum[1]), int(oxum[2])) != (sum(sizes), len(sizes)):
        found.append("Payload-Oxum")
    return found


def read_lines(manifest: Path) -> list[tuple[str, str]]:
    found = [re.fullmatch(r"([0-9a-f]{64})[ \t]+(.+)", line) for line in manifest.read_text("utf-8").splitlines()]
    assert all(found)
    return [(each[1], each[2]) for each in found if each]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        make_folders((tmp_path / "bag" / name).parent)
        (tmp_path / "bag" / name).write_bytes(content)
    close_bag(tmp_path / "bag", [("DocV-Evaluations", 1), ("DocV-Missing", "a: b"), ("DocV-Missing", "c: d")])
    return tmp_path / "bag"


def test_a_bag_is_valid_and_has_its_metadata(bag: Path) -> None:
    assert find_faults(bag) == []
    info = (bag / "bag-info.txt").read_text().splitlines()
    assert info[3:] == ["DocV-Evaluations: 1", "DocV-Missing: a: b", "DocV-Missing: c: d"]
    assert {f"Bag-Software-Agent: {archiver()}", "Payload-Oxum: 9.3"} <= set(info)
    assert {stat.S_IMODE(path.stat().st_mode) for path in bag.glob("*.txt")} == {0o600}


@pytest.mark.parametrize("name", ["data/id/a b.jpg", "bag-info.txt"])
def test_a_bag_is_invalid_when_a_file_was_changed(bag: Path, name: str) -> None:
    (bag / name).write_bytes(b"changed")
    assert find_faults(bag)


def test_a_bag_is_invalid_when_a_file_was_added(bag: Path) -> None:
    (bag / "data/id/c.jpg").touch()
    assert "data/id/c.jpg: listed or there, not both" in find_faults(bag)
