"""Set and end S3's legal hold on the versions of an evaluation's objects."""

from collections.abc import Callable

from scripts.archive_access.s3_client import S3Archive, call_or_none
from scripts.erase.versions import S3Versions
from tasks.model.evaluation import Evaluation

_GONE = frozenset({"NoSuchKey", "NoSuchVersion"})


def hold_all(archive: S3Archive, evaluation: Evaluation, find_status: Callable[[str], str | None]) -> int:
    """Set the hold ``ON`` or ``OFF`` for versions of an evaluation's objects; return the number of versions.

    Noncurrent versions are included, as are those behind a delete marker, because they can be removed, too. The
    objects are listed again until a listing has nothing new, because workers may write meanwhile.

    Args:
        find_status: returns the status of a key; None to change nothing.

    Raises:
        ServiceUnavailable: S3 refuses or fails.
    """
    stock, done = S3Versions(archive), set[tuple[str, str]]()
    while new := [
        (item, status)
        for item in stock.items(evaluation)
        if not item.deletion and (item.key, item.version) not in done and (status := find_status(item.key))
    ]:
        for item, status in new:
            _set_hold(archive, item.key, item.version, status)
            done.add((item.key, item.version))
    return len(done)


def _set_hold(archive: S3Archive, key: str, version: str, status: str) -> None:
    call_or_none(
        lambda: archive.client.put_object_legal_hold(
            Bucket=archive.bucket, Key=archive.prefix + key, VersionId=version, LegalHold={"Status": status}
        ),
        "s3:PutObjectLegalHold",
        _GONE,
    )
