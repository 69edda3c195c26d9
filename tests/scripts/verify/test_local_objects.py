"""Objects of an archive in a folder are listed from a real disk."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.verify import local_objects
from scripts.verify.local_objects import LocalObjectLister
from scripts.verify.objects_api import IRREGULAR
from tasks.errors import StorageError
from tasks.storage.bucket import ListedObject


async def walk(root: Path, prefix: str = "") -> list[ListedObject]:
    return [stored async for some in LocalObjectLister(root).walk(prefix) for stored in some]


@pytest.mark.parametrize("names_at_once", [1, 2, 3, 100_000])
async def test_objects_are_listed_in_the_order_of_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_at_once: int
) -> None:
    monkeypatch.setattr(local_objects, "_NAMES", names_at_once)
    keys = ["a", "a.b/c", "a-", "a/b", "b/c/d/e", "b/c0", "b.", "c/ä", "c/~", ".hidden/x"]
    keys.remove("a")
    for key in random.sample(keys, len(keys)):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(key.encode())
    found = await walk(tmp_path)
    assert [stored.key for stored in found] == sorted(keys, key=str.encode)
    assert [stored.size for stored in found] == [len(stored.key.encode()) for stored in found]
    assert [stored.key for stored in await walk(tmp_path, "b/")] == ["b/c/d/e", "b/c0"]
    assert await walk(tmp_path, "nothing/") == []
    lister = LocalObjectLister(tmp_path)
    folders = {
        prefix: [name async for some in lister.list_folders(prefix) for name in some] for prefix in ("", "b/", "x/")
    }
    assert folders == {"": [".hidden", "a.b", "a", "b", "c"], "b/": ["c"], "x/": []}


async def test_the_modification_time_cannot_be_set_by_a_program(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    os.utime(path, (10**10, 10**10))
    (stored,) = await walk(tmp_path)
    assert stored.modified == path.stat().st_ctime < 10**10


async def test_a_special_file_is_listed_as_irregular_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(root / "pipe")
    assert [(stored.key, stored.size) for stored in await walk(root)] == [("link", IRREGULAR), ("pipe", IRREGULAR)]


async def test_folders_may_be_nested_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * (sys.getrecursionlimit() + 200))
    parent = os.open(tmp_path, os.O_RDONLY)
    for _ in range(len(deep.parts) - len(tmp_path.parts)):
        os.mkdir("a", dir_fd=parent)
        child = os.open("a", os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = child
    os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=parent))
    os.close(parent)
    (stored,) = await walk(tmp_path)
    # shutil.rmtree would exceed the recursion limit, because it calls itself for each folder.
    subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)  # noqa: ASYNC221, S607  # rm is found on PATH
    assert stored.key == f"{deep.relative_to(tmp_path)}/x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
async def test_an_unreadable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(StorageError, match="Permission denied"):
        await walk(tmp_path)
