# ruff: noqa: ASYNC240  # the disk is what is tested here
import asyncio
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import ManifestChanged, StorageError
from tasks.storage import local_bucket
from tasks.storage.bucket import AlreadyExists, ObjectAttributes
from tasks.storage.local_bucket import LocalBucket

# test_bucket.py tests the guarantees of all buckets.

KEY = "sandbox/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10/selfie/ab.jpg"
LABELS = ObjectAttributes("image/jpeg")
CONTENT = b"a selfie"
ADVICE = "; check that folder, or use another one in DOCV_ARCHIVE_URL"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "below" / "the archive"


@pytest.fixture(params=["unnamed files", "no unnamed files"])
def bucket(root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LocalBucket:
    if request.param == "no unnamed files":
        monkeypatch.setattr(local_bucket, "_UNNAMED", os.O_DIRECTORY)
    return LocalBucket(root)


@pytest.fixture
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Files on the disk


@pytest.mark.usefixtures("_no_umask")
async def test_files_and_folders_are_readable_only_by_their_owner(bucket: LocalBucket, root: Path) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    await bucket.replace("sandbox/manifest.json", b"1", LABELS, None)
    await bucket.replace("sandbox/manifest.json", b"2", LABELS, hashlib.sha256(b"1").hexdigest())
    for path in (root, *root.rglob("*")):
        assert permissions(path) == (0o700 if path.is_dir() else 0o600), path


async def test_an_existing_folder_keeps_its_permissions(bucket: LocalBucket, root: Path) -> None:
    root.mkdir(parents=True)
    root.chmod(0o750)
    await bucket.create(KEY, CONTENT, LABELS)
    assert permissions(root) == 0o750


async def test_an_object_is_stored_under_its_key_and_nothing_else_is_left(bucket: LocalBucket, root: Path) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    await bucket.replace("sandbox/manifest.json", b"1", LABELS, None)
    with pytest.raises(AlreadyExists):
        await bucket.create(KEY, b"another", LABELS)
    with pytest.raises(ManifestChanged):
        await bucket.replace("sandbox/manifest.json", b"2", LABELS, None)
    assert files(root) == {KEY, "sandbox/manifest.json"}
    assert (root / KEY).read_bytes() == CONTENT
    assert (root / KEY).stat().st_nlink == 1


async def test_reading_makes_no_folders(bucket: LocalBucket, root: Path) -> None:
    assert await bucket.read(KEY) is None
    assert await bucket.digest(KEY) is None
    assert not root.exists()


async def test_two_buckets_on_one_folder_are_one_archive(bucket: LocalBucket, root: Path) -> None:
    await bucket.create(KEY, CONTENT, LABELS)
    again = LocalBucket(root)
    found = await again.read(KEY)
    assert found
    assert found.data == CONTENT
    await again.replace(KEY, b"second", LABELS, found.etag)
    with pytest.raises(ManifestChanged):
        await bucket.replace(KEY, b"third", LABELS, found.etag)


# A disk that fails


async def test_methods_raise_storage_error_when_a_file_has_the_name_of_a_folder(
    bucket: LocalBucket, root: Path
) -> None:
    root.parent.mkdir()
    root.write_bytes(b"not a folder")
    for call in (
        bucket.create(KEY, CONTENT, LABELS),
        bucket.replace(KEY, CONTENT, LABELS, None),
        bucket.read(KEY),
        bucket.digest(KEY),
        bucket.stream(KEY),
    ):
        with pytest.raises(StorageError) as caught:
            await call
        assert str(root) not in str(caught.value)
    assert root.read_bytes() == b"not a folder"


async def test_methods_raise_storage_error_when_a_folder_has_the_key_of_an_object(
    bucket: LocalBucket, root: Path
) -> None:
    (root / KEY).mkdir(parents=True)
    with pytest.raises(StorageError):
        await bucket.read(KEY)
    with pytest.raises(StorageError):
        await bucket.digest(KEY)
    with pytest.raises(StorageError):
        await bucket.stream(KEY)
    with pytest.raises((StorageError, AlreadyExists)):
        await bucket.create(KEY, CONTENT, LABELS)
    assert files(root) == set()


async def test_methods_raise_storage_error_when_a_link_leads_to_itself(bucket: LocalBucket, root: Path) -> None:
    root.parent.mkdir()
    root.symlink_to(root)
    with pytest.raises(StorageError):
        await bucket.create(KEY, CONTENT, LABELS)
    with pytest.raises(StorageError):
        await bucket.read(KEY)


async def test_errors_contain_neither_the_key_nor_the_folder(bucket: LocalBucket, root: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await bucket.create("sandbox/" + "n" * 300, CONTENT, LABELS)
    assert (caught.value.doing, caught.value.what) == ("create", f"File name too long{ADVICE}")
    assert caught.value.__suppress_context__
    assert str(root) not in f"{caught.value}{caught.value!r}"


# Other processes. Each gets the folder, a command and a number, and waits for a line from the test.

SCRIPT = """
import asyncio, resource, signal, sys
from pathlib import Path
from tasks.storage import local_bucket
from tasks.storage.bucket import AlreadyExists, ObjectAttributes
from tasks.errors import ManifestChanged, StorageError
from tasks.storage.local_bucket import LocalBucket

KEY, LABELS = "sandbox/selfie/ab.jpg", ObjectAttributes("image/jpeg")
bucket, command, number = LocalBucket(Path(sys.argv[1])), sys.argv[2], sys.argv[3]

async def create():
    for turn in range(20):
        try:
            await bucket.create(f"{KEY}{turn}", number.encode() * 100_000, LABELS)
            print("created", turn)
        except AlreadyExists:
            pass

async def count():
    for _ in range(20):
        while True:
            found = await bucket.read(KEY)
            counted = b"%d" % (int(found.data if found else 0) + 1)
            try:
                await bucket.replace(KEY, counted, LABELS, found and found.etag)
                break
            except ManifestChanged:
                pass

async def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    for call in (bucket.create(KEY, bytes(1 << 20), LABELS), bucket.replace(KEY, bytes(1 << 20), LABELS, None)):
        try:
            await call
        except StorageError as error:
            print(error.doing, error.what)

async def die():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    await fill()

print("ready", flush=True)
sys.stdin.readline()
asyncio.run({"create": create, "count": count, "fill": fill, "die": die}[command]())
"""


def run_processes(root: Path, command: str, count: int) -> list[tuple[int, list[str]]]:
    """Run several processes at once, and return the exit code and the output of each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(root), command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for number in range(count)
    ]
    try:
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [(process.returncode, text.splitlines()) for process, text in zip(started, outputs, strict=True)]


def test_one_of_two_processes_creates_an_object(root: Path) -> None:
    ended = run_processes(root, "create", 2)
    assert [code for code, _ in ended] == [0, 0]
    for turn in range(20):
        content = (root / f"sandbox/selfie/ab.jpg{turn}").read_bytes()
        (creator,) = [number for number, (_, lines) in enumerate(ended) if f"created {turn}" in lines]
        assert content == str(creator).encode() * 100_000
    assert len(files(root)) == 20


def test_no_write_is_lost_when_two_processes_replace_an_object(root: Path) -> None:
    ended = run_processes(root, "count", 2)
    assert [code for code, _ in ended] == [0, 0]
    assert files(root) == {"sandbox/selfie/ab.jpg"}
    assert (root / "sandbox/selfie/ab.jpg").read_bytes() == b"40"


def test_a_write_over_the_file_size_limit_raises_storage_error_and_leaves_nothing(root: Path) -> None:
    assert run_processes(root, "fill", 1) == [
        (0, [f"create File too large{ADVICE}", f"replace File too large{ADVICE}"])
    ]
    assert files(root) == set()


def test_a_process_leaves_no_object_when_it_is_killed_while_writing(root: Path) -> None:
    ((code, _),) = run_processes(root, "die", 1)
    assert code < 0
    key = "sandbox/selfie/ab.jpg"
    assert files(root) == set()
    assert not (root / key).exists()

    async def create_again() -> str | None:
        bucket = LocalBucket(root)
        assert await bucket.digest(key) is None
        await bucket.create(key, CONTENT, LABELS)
        return await bucket.digest(key)

    assert asyncio.run(create_again()) == hashlib.sha256(CONTENT).hexdigest()
