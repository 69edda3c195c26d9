"""Check that S3 Object Lock allows the removal of a version."""

from datetime import UTC, datetime
from typing import Any

from scripts.archive_access.s3_client import S3Archive, call_or_none
from scripts.erase.stock import ObjectVersion

_NONE = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"})


def find_lock(archive: S3Archive, item: ObjectVersion, *, bypass_governance: bool) -> str | None:
    """Return why a version must not be removed, or None.

    HEAD would return both locks in one call. But it omits them if the credentials may not read them, which looks like
    "no lock".

    Raises:
        ServiceUnavailable: S3 does not answer.
    """
    which = {"Bucket": archive.bucket, "Key": archive.prefix + item.key, "VersionId": item.version}
    held = call_or_none(lambda: archive.client.get_object_legal_hold(**which), "s3:GetObjectLegalHold", _NONE) or {}
    if held.get("LegalHold", {}).get("Status") == "ON":
        return "it is under legal hold; `docv-archive legal-hold ID --off` ends the hold, if the law allows it"
    return _find_retention(archive.client, which, bypass_governance=bypass_governance)


def _find_retention(client: Any, which: dict[str, str], *, bypass_governance: bool) -> str | None:
    answer = call_or_none(lambda: client.get_object_retention(**which), "s3:GetObjectRetention", _NONE) or {}
    until = answer.get("Retention", {}).get("RetainUntilDate")
    if until is None or until <= datetime.now(UTC):
        return None
    mode = answer["Retention"].get("Mode")
    sentence = f"its retention ({mode}) lasts until {until:%Y-%m-%d %H:%M} UTC"
    if mode == "GOVERNANCE":
        return None if bypass_governance else f"{sentence}; --bypass-governance overrides it"
    return f"{sentence}, and it cannot be shortened"
