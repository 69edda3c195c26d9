"""Find the matters of an evaluation: legal holds, which block its erasure."""

from collections.abc import Collection, Sequence

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.matter import find_recorded_matters


class UnderLegalHold(Exception):
    """The evaluation is under legal holds, so nothing of it may be removed.

    Args:
        matters: their names.
    """

    def __init__(self, matters: Sequence[str]) -> None:
        super().__init__(matters)
        self._matters = matters

    def __str__(self) -> str:
        names = ", ".join(self._matters)
        holds = "legal hold" if len(self._matters) == 1 else "legal holds"
        return (
            f"it is under the {holds} {names}; `docv-archive legal-hold release {self._matters[0]}` ends it, if the "
            "law allows that"
        )


def check_manifest(manifest: Manifest | None, kinds: Collection[str] = ()) -> None:
    """Check that documents are under no matter.

    Args:
        kinds: their kinds; empty for all.

    Raises:
        UnderLegalHold: they are under one.
    """
    if manifest and (matters := manifest.find_matters(kinds) if kinds else manifest.matters):
        raise UnderLegalHold(matters)


async def check_matters(bucket: Bucket, evaluation: Evaluation) -> None:
    """Check that an evaluation is under no matter; without a manifest that can be read, the records of matters decide.

    Raises:
        UnderLegalHold: it is under one.
        IntegrityError: the manifest cannot be read, and a record is damaged, too.
        StorageError: the bucket failed.
    """
    try:
        found = await read_manifest(bucket, evaluation)
    except IntegrityError:
        found = None
    if found:
        check_manifest(found.manifest)
    elif matters := await find_recorded_matters(bucket, evaluation):
        raise UnderLegalHold(matters)
