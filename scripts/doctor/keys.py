"""Find out which encryption keys are still needed, by reading the key IDs in the objects."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.archive_access.s3_client import open_s3_archive, translate_s3_errors
from scripts.console.formatting import format_count
from scripts.doctor.finding import Finding, fine, warning, wrong
from tasks.model.evaluation import ENVIRONMENTS
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from worker.config.settings import Settings

_AT_ONCE = 64
_PARTS = 4


async def examine_keys(settings: Settings) -> list[Finding]:
    """Return a finding for each key that is configured, or with which an object is sealed."""
    keyring = Keyring.of(settings.keyring_texts())
    async with open_read_only_bucket(settings) as bucket:
        counts = await _count(EncryptedBucket(bucket, keyring), settings)
    plain, known = counts.pop(None, 0), list(keyring.keys) if keyring else []
    findings = [judge_key(key_id, counts[key_id], known) for key_id in sorted({*known, *filter(None, counts)})]
    if not findings:
        return [fine("keys", f"none is set, and none of {plain:,} objects is sealed")]
    if plain:
        message = f"{format_count(plain, 'object', 'is', 'are')} not sealed"
        findings.append(warning("keys", message, "check whether they are older than the keys"))
    return findings


def judge_key(key_id: str, objects: int, known: list[str]) -> Finding:
    """Return whether a key is needed and configured; the first configured key seals new objects."""
    what, sealed = f"key {key_id}", f"{format_count(objects, 'object', 'is', 'are')} sealed with it"
    if key_id not in known:
        message = f"{sealed}, but DOCV_ENCRYPTION_KEYS does not have it"
        return wrong(what, message, "add it: without it these objects cannot be read")
    if objects:
        return fine(what, f"needed: {sealed}")
    if key_id == known[0]:
        return fine(what, "needed: new objects are sealed with it")
    return fine(what, "not needed: no object is sealed with it; noncurrent versions in S3 were not checked")


async def _count(bucket: EncryptedBucket, settings: Settings) -> Counter[str | None]:
    """Count documents, and bundles in quarantine, by the ID of their key; None counts those that are not sealed."""
    counts: Counter[str | None] = Counter()
    keys = filter(_may_be_sealed, _list_keys(settings))
    while some := await asyncio.to_thread(lambda: list(itertools.islice(keys, _AT_ONCE))):
        counts.update(await asyncio.gather(*map(bucket.find_key_id, some)))
    return counts


def _may_be_sealed(key: str) -> bool:
    """Return whether an object key belongs to a document or to a bundle in quarantine."""
    parts = key.split("/")
    first, third = parts[0], parts[2] if len(parts) == _PARTS else ""
    return bool(third) and (first == "quarantine" or (first in ENVIRONMENTS and third != "revisions"))


def _list_keys(settings: Settings) -> Iterator[str]:
    archive = open_s3_archive(settings)
    if archive:
        with translate_s3_errors("s3:ListBucket"):
            for page in archive.list_pages("list_objects_v2", ""):
                yield from (archive.relative_key(found["Key"]) for found in page.get("Contents", ()))
        return
    root = Path(unquote(urlsplit(settings.archive_url).path))
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name).relative_to(root).as_posix() for name in names)
