"""May a version be removed? Asked of S3 for each one, before anything is."""

from datetime import UTC, datetime
from typing import Any

from scripts.archive_access.s3_client import S3Archive, call_or_none
from scripts.erase.stock import ObjectVersion

_NONE = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"})


def lock_of(archive: S3Archive, item: ObjectVersion, *, bypass_governance: bool) -> str | None:
    """Return why a version must not be removed, or None.

    A HEAD would tell both in one call; but to who may not know them it says nothing, and that reads like "no lock".

    Raises:
        ServiceUnavailable: S3 does not say.
    """
    which = {"Bucket": archive.bucket, "Key": archive.prefix + item.key, "VersionId": item.version}
    held = call_or_none(lambda: archive.client.get_object_legal_hold(**which), "s3:GetObjectLegalHold", _NONE) or {}
    if held.get("LegalHold", {}).get("Status") == "ON":
        return "it is under legal hold; `docv-archive legal-hold ID --off` ends that, where the law allows it"
    return _retention(archive.client, which, bypass_governance=bypass_governance)


def _retention(client: Any, which: dict[str, str], *, bypass_governance: bool) -> str | None:
    answer = call_or_none(lambda: client.get_object_retention(**which), "s3:GetObjectRetention", _NONE) or {}
    until = answer.get("Retention", {}).get("RetainUntilDate")
    if until is None or until <= datetime.now(UTC):
        return None
    mode = answer["Retention"].get("Mode")
    sentence = f"its retention ({mode}) lasts until {until:%Y-%m-%d %H:%M} UTC"
    if mode == "GOVERNANCE":
        return None if bypass_governance else f"{sentence}; --bypass-governance goes past it"
    return f"{sentence}, and nobody can shorten it"
