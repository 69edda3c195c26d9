"""Measure how fast `audit`, `verify` and `retention plan` read an archive: `make bench-archive`.

The archive is a folder in which a few documents have many names. So each evaluation takes only the disk space of its
manifest, and the disk does not limit the speed. The commands read it as a folder, and then as S3, from a stand-in in
another process that has the same files. It has two sizes, to show whether memory grows.
"""

import contextlib
import hashlib
import http.client
import os
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import click

from tasks.model.evaluation import Evaluation
from tasks.storage.manifest import Manifest
from tests.bench.environment import get_counts, stand_in
from tests.bench.manifests import fill_archive
from tests.bench.processes import CommandUsage, exit_on_sigterm, run

_EVALUATIONS = (1_000, 10_000)
_DOCUMENT = 250_000
_DOCUMENTS = 3
_LINKS = 20_000  # ext4 allows at most 65,000 names of one file
_MB, _MIB = 1_000_000, 1 << 20
_PLAN = ("retention", "plan", "--until", "2040-01-01", "--out", "plan.jsonl.gz")
_COMMANDS = (
    ("audit", "ids.txt"),
    ("verify",),
    ("verify", "--checksums-only"),
    ("verify", "--sizes-only"),
    _PLAN,
)
_BOUNDS = {("audit", "ids.txt"): "2,000 IDs/s", ("verify",): "300 MB/s", _PLAN: "2,000 evaluations/s"}
# Every document is due, so that the plan has a line for each evaluation.
_SCHEDULE = """
[[rule]]
name = "selfies"
kind = "selfie"
keep_for = "3y"
clock = "archived"

[[rule]]
name = "attachments"
kind = "secondary_document"
keep_for = "5y"
clock = "relationship_ended"

[[rule]]
name = "rest"
keep_for = "5y"
clock = "archived"
"""


@dataclass(frozen=True)
class Place:
    """An archive: the settings that name it, and a connection to the stand-in that counts requests, if there is one."""

    name: str
    settings: Mapping[str, str]
    connection: http.client.HTTPConnection | None = None

    def requests(self) -> int:
        """Return how many requests the stand-in has received."""
        return sum(get_counts(self.connection).values()) if self.connection else 0


def main() -> None:
    """Make archives, run the commands on them, and print the results."""
    for count in _EVALUATIONS:
        with tempfile.TemporaryDirectory(prefix="docv-bench-") as name:
            folder = Path(name)
            archive = folder / "archive"
            eval_ids = [str(uuid4()) for _ in range(count)]
            fill_archive(archive, eval_ids)
            _fill_documents(archive, eval_ids)
            (folder / "ids.txt").write_text("\n".join(eval_ids))
            (folder / "retention.toml").write_text(_SCHEDULE)
            with _places(folder, archive) as places:
                for place in places:
                    _measure(place, count, folder)


@contextlib.contextmanager
def _places(folder: Path, archive: Path) -> Iterator[tuple[Place, Place]]:
    ours = {"DOCV_STATE_DIR": str(folder / "state"), "DOCV_RETENTION": str(folder / "retention.toml")}
    with stand_in(folder, ["archive", "--folder", str(archive)]) as port:
        s3 = ours | {
            "DOCV_ARCHIVE_URL": "s3://bench",
            "DOCV_S3_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        connection = http.client.HTTPConnection("127.0.0.1", port)
        yield Place("folder", ours | {"DOCV_ARCHIVE_URL": archive.as_uri()}), Place("S3", s3, connection)
        connection.close()


def _measure(place: Place, count: int, folder: Path) -> None:
    click.echo(f"\n{place.name}, {count:,} evaluations of {_DOCUMENTS} documents of {_DOCUMENT // 1000} kB")
    for command in _COMMANDS:
        before = place.requests()
        _print_result(command, count, run(command, place.settings, folder), place.requests() - before)


def _print_result(command: tuple[str, ...], count: int, used: CommandUsage, requests: int) -> None:
    if used.code:
        raise click.ClickException(f"{' '.join(command)} ended with exit code {used.code}: {used.out[:1000]}")
    bound = f" (at least {_BOUNDS[command]})" if command in _BOUNDS else ""
    size = count * _DOCUMENTS * _DOCUMENT
    speed = f", {size / used.seconds / _MB:,.0f} MB/s" if command == ("verify",) else ""
    click.echo(
        f"{' '.join(command):24} {count / used.seconds:,.0f} evaluations/s{speed}{bound}; "
        f"{used.memory / _MIB:.0f} MiB, {used.seconds:.1f} s, {used.cpu:.1f} s of CPU"
        + (f", {requests / count:.2f} requests an evaluation" if requests else "")
    )


def _fill_documents(archive: Path, eval_ids: Iterable[str]) -> None:
    """Write the documents of each manifest, as names of a few files."""
    source = archive.parent / "source"
    for number, eval_id in enumerate(eval_ids):
        if number * _DOCUMENTS % _LINKS < _DOCUMENTS:
            data = random.Random(number).randbytes(_DOCUMENT)  # noqa: S311  # not a secret
            source.unlink(missing_ok=True)
            source.write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
        path = archive / Evaluation(eval_id, "sandbox").manifest_key
        _name_documents(path, Manifest.model_validate_json(path.read_bytes()), source, sha256)


def _name_documents(path: Path, manifest: Manifest, source: Path, sha256: str) -> None:
    evaluation = Evaluation(manifest.eval_id, manifest.environment)
    documents = [
        document.model_copy(
            update={"key": evaluation.document_key(document.kind, sha256, "jpg"), "sha256": sha256, "size": _DOCUMENT}
        )
        for document in manifest.documents
    ]
    for document in documents:
        place = path.parent / document.kind / Path(document.key).name
        place.parent.mkdir()
        os.link(source, place)
    path.write_bytes(manifest.model_copy(update={"documents": tuple(documents)}).as_json())


if __name__ == "__main__":
    exit_on_sigterm()
    main()
