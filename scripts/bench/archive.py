"""How fast an archive can be asked and read back: `make bench-archive`.

The archive is a folder whose documents are few files under many names: so it needs no more of the disk than a manifest
for each evaluation, and what is measured is our own work and not the disk's.
"""

import hashlib
import os
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import click

from scripts.bench.manifests import fill_archive
from scripts.bench.processes import Took, run
from tasks.evaluation import Evaluation
from tasks.manifest import Manifest

_EVALUATIONS = 10_000
_DOCUMENT = 250_000
_LINKS = 20_000  # a file system may allow no more than some ten thousand names of one file
_MB, _MIB = 1_000_000, 1 << 20


def main() -> None:
    """Make an archive, ask it, read it back, and print what that took."""
    with tempfile.TemporaryDirectory(prefix="docv-bench-") as name:
        folder = Path(name)
        archive = folder / "archive"
        eval_ids = [str(uuid4()) for _ in range(_EVALUATIONS)]
        fill_archive(archive, eval_ids)
        size = _fill_documents(archive, eval_ids)
        (folder / "ids.txt").write_text("\n".join(eval_ids))
        settings = {"DOCV_ARCHIVE_URL": archive.as_uri(), "DOCV_STATE_DIR": str(folder / "state")}
        asked = run(["audit", "ids.txt"], settings, folder)
        _say("audit", f"{_EVALUATIONS / asked.seconds:,.0f} IDs/s", "2,000 IDs/s", asked)
        read = run(["verify"], settings, folder)
        speed = f"{size / read.seconds / _MB:,.0f} MB/s, {_EVALUATIONS / read.seconds:,.0f} evaluations/s"
        _say("verify", speed, "300 MB/s", read)
        listed = run(["verify", "--sizes-only"], settings, folder)
        _say("verify --sizes-only", f"{_EVALUATIONS / listed.seconds:,.0f} evaluations/s", "", listed)


def _fill_documents(archive: Path, eval_ids: Iterable[str]) -> int:
    """Let every manifest name documents that are there; return their bytes."""
    source, size = archive.parent / "source", 0
    for number, eval_id in enumerate(eval_ids):
        if number * 3 % _LINKS < 3:  # noqa: PLR2004  # the documents of one evaluation
            data = random.Random(number).randbytes(_DOCUMENT)  # noqa: S311  # no secret
            source.unlink(missing_ok=True)
            source.write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
        path = archive / Evaluation(eval_id, "sandbox").manifest_key
        size += _name_documents(path, Manifest.model_validate_json(path.read_bytes()), source, sha256)
    return size


def _name_documents(path: Path, manifest: Manifest, source: Path, sha256: str) -> int:
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
    return sum(document.size for document in documents)


def _say(what: str, measured: str, least: str, took: Took) -> None:
    if took.code:
        raise click.ClickException(f"{what} ended with exit code {took.code}: {took.out[:1000]}")
    bound = f" (at least {least})" if least else ""
    click.echo(f"{what}: {measured}{bound}; {took.memory / _MIB:.0f} MiB, {took.cpu:.1f} s of CPU")


if __name__ == "__main__":
    main()
