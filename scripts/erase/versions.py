"""List and remove an evaluation's objects in S3: versions, delete markers and unfinished uploads."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from scripts.archive_access.s3_client import S3Archive, open_s3_archive, translate_s3_errors
from scripts.erase.files import LocalFiles
from scripts.erase.locks import find_lock, read_lock
from scripts.erase.stock import NotRemoved, ObjectVersion, ObjectVersions, VersionLock, key_prefixes
from tasks.model.evaluation import Evaluation
from worker.clients.archive import open_archive
from worker.config.settings import Settings

_GONE = {"NoSuchKey", "NoSuchVersion"}
_AT_ONCE = 1000  # limit of S3's DeleteObjects


class S3Versions:
    """Lists and removes object versions in S3 as ``ObjectVersions``.

    Args:
        archive: the archive in S3.
    """

    def __init__(self, archive: S3Archive) -> None:
        self._archive = archive

    def items(self, evaluation: Evaluation) -> list[ObjectVersion]:
        """Return every version of an evaluation's objects, delete markers included."""
        with translate_s3_errors("s3:ListBucketVersions"):
            return [item for prefix in key_prefixes(evaluation) for item in self._items(prefix)]

    def _items(self, prefix: str) -> Iterator[ObjectVersion]:
        for page in self._archive.list_pages("list_object_versions", prefix):
            for kind in ("Versions", "DeleteMarkers"):
                for found in page.get(kind, ()):
                    key, size = self._archive.relative_key(found["Key"]), found.get("Size", 0)
                    is_marker = kind == "DeleteMarkers"
                    yield ObjectVersion(key, found["VersionId"], size, latest=found["IsLatest"], deletion=is_marker)

    def locks(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> str | None:
        """Return why one of these versions must not be removed, or None."""
        if not self._has_locks:
            return None
        found = (
            find_lock(self._archive, item, bypass_governance=bypass_governance) for item in items if not item.deletion
        )
        return next((why for why in found if why), None)

    def lock_of(self, item: ObjectVersion) -> VersionLock | None:
        """Return the lock of a version, even if it has ended, or None."""
        return read_lock(self._archive, item) if self._has_locks and not item.deletion else None

    @cached_property
    def _has_locks(self) -> bool:
        return self._archive.has_object_lock()

    def remove(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> None:
        """Remove these versions for good.

        Raises:
            NotRemoved: S3 did not remove all of them.
            ServiceUnavailable: S3 refuses or fails.
        """
        named = [{"Key": self._archive.prefix + item.key, "VersionId": item.version} for item in items]
        bypass = {"BypassGovernanceRetention": True} if bypass_governance else {}
        codes = set[str]()
        for start in range(0, len(named), _AT_ONCE):
            wanted = {"Objects": named[start : start + _AT_ONCE], "Quiet": True}
            with translate_s3_errors("s3:DeleteObject and s3:DeleteObjectVersion"):
                answer = self._archive.client.delete_objects(Bucket=self._archive.bucket, Delete=wanted, **bypass)
            codes |= {error.get("Code", "no code") for error in answer.get("Errors", ())}
        # A concurrent erasure removed them first. Amazon's S3 does not report this as an error; other services may.
        codes -= _GONE
        if codes:
            reported = ", ".join(sorted(codes))
            raise NotRemoved(
                f"S3 did not remove all of it ({reported}); the credentials need s3:DeleteObject and "
                f"s3:DeleteObjectVersion{' and s3:BypassGovernanceRetention' if bypass else ''}; run the same "
                "command to continue"
            )

    def tidy(self, evaluation: Evaluation) -> None:
        """Abort unfinished uploads, since their parts hold documents, too."""
        client, bucket = self._archive.client, self._archive.bucket
        for prefix in key_prefixes(evaluation):
            with translate_s3_errors("s3:ListBucketMultipartUploads"):
                pages = list(self._archive.list_pages("list_multipart_uploads", prefix))
            for upload in (each for page in pages for each in page.get("Uploads", ())):
                if upload["Key"].startswith(self._archive.prefix + prefix):
                    with translate_s3_errors("s3:AbortMultipartUpload"):
                        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def keys(self, below: str) -> list[str]:
        """Return the keys below a prefix, in order."""
        with translate_s3_errors("s3:ListBucket"):
            pages = self._archive.list_pages("list_objects_v2", below)
            return [self._archive.relative_key(found["Key"]) for page in pages for found in page.get("Contents", ())]


def open_versions(settings: Settings) -> ObjectVersions:
    """Return the versions of the archive in S3, or the files of the archive in a folder; raises as ``connect_s3``."""
    archive = open_s3_archive(settings)
    if archive:
        return S3Versions(archive)
    folder = open_archive(settings)
    if not isinstance(folder, Path):
        raise TypeError(folder)
    return LocalFiles(folder)
