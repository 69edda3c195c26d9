"""Check that S3 Object Lock allows the removal of a version."""

from datetime import UTC, datetime

from scripts.archive_access.s3_client import S3Archive, call_or_none
from scripts.erase.stock import ObjectVersion, VersionLock

_NONE = frozenset(
    {
        *("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"),
        *("NoSuchKey", "NoSuchVersion"),  # removed meanwhile
    }
)


def find_lock(archive: S3Archive, item: ObjectVersion, *, bypass_governance: bool) -> str | None:
    """Return why a version must not be removed, or None; raises as ``read_lock``."""
    lock = read_lock(archive, item)
    if lock is None or not lock.holds(datetime.now(UTC)):
        return None
    if lock.until is None:
        return (
            "it is under a legal hold in S3, and its manifest names no matter: `docv-archive legal-hold release` "
            "completes an interrupted release; any other hold has to be ended in S3, if the law allows it"
        )
    sentence = f"its retention ({lock.mode}) lasts until {lock.until:%Y-%m-%d %H:%M} UTC"
    if lock.mode == "GOVERNANCE":
        return None if bypass_governance else f"{sentence}; --bypass-governance overrides it"
    return f"{sentence}, and it cannot be shortened"


def read_lock(archive: S3Archive, item: ObjectVersion) -> VersionLock | None:
    """Return the legal hold of a version, or its retention, even if that has ended.

    HEAD would return both locks in one call. But it omits them if the credentials may not read them, which looks like
    "no lock".

    Raises:
        ServiceUnavailable: S3 does not answer.
    """
    which = locate(archive, item)
    held = call_or_none(lambda: archive.client.get_object_legal_hold(**which), "s3:GetObjectLegalHold", _NONE) or {}
    if held.get("LegalHold", {}).get("Status") == "ON":
        return VersionLock("HOLD")
    return read_retention(archive, item)


def read_retention(archive: S3Archive, item: ObjectVersion) -> VersionLock | None:
    """Return the retention of a version, even if it has ended, or None; raises as ``read_lock``."""
    which = locate(archive, item)
    answer = call_or_none(lambda: archive.client.get_object_retention(**which), "s3:GetObjectRetention", _NONE) or {}
    found = answer.get("Retention", {})
    return VersionLock(found.get("Mode", ""), found["RetainUntilDate"]) if "RetainUntilDate" in found else None


def locate(archive: S3Archive, item: ObjectVersion) -> dict[str, str]:
    """Return the arguments of boto3 that identify a version; the current one if it has no ID."""
    version = {"VersionId": item.version} if item.version else {}
    return {"Bucket": archive.bucket, "Key": archive.prefix + item.key, **version}
