"""Find disposals that no certificate lists yet, because an application was interrupted."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from scripts.retention.certificate import CERTIFICATES, is_certificate_key, read_certificate
from scripts.verify.objects_api import ObjectLister
from tasks.errors import IntegrityError
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, format_utc
from tasks.storage.manifest_records import DisposedRecord

_RECENT = timedelta(days=7)
"""Within this time, another machine may have written a certificate before the application was complete."""


@dataclass(slots=True)
class _Listing:
    """What a certificate lists.

    Attributes:
        until: when the last of its documents was disposed of.
        documents: its documents by kind and hash, without those that manifests were found to name.
    """

    until: str = ""
    documents: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class CertificateIndex:
    """The certificates of an archive.

    Attributes:
        bucket: reads certificates.
        since: time in the format of manifests; disposals from then on are recent.
        old: keys of certificates whose plans were made before; they list all older disposals that name them.
        listings: what the other certificates list, and the old ones that recent disposals name.
    """

    bucket: Bucket
    since: str
    old: frozenset[str]
    listings: dict[str, _Listing]

    async def find_open(self, manifest: Manifest) -> tuple[DisposedRecord, ...]:
        """Return the disposals of a manifest that no certificate lists; call it once for each manifest.

        Raises:
            StorageError: a certificate cannot be read.
        """
        named = [each for each in manifest.disposed if is_certificate_key(each.receipt or "", manifest.environment)]
        return tuple([each for each in named if await self._is_open(each.receipt or "", each)])

    async def _is_open(self, key: str, record: DisposedRecord) -> bool:
        is_old = key in self.old
        if is_old and record.disposed_at < self.since:
            return False
        if key not in self.listings:
            self.listings[key] = await _read_listing(self.bucket, key) if is_old else _Listing()
        listing, document = self.listings[key], (record.kind, record.sha256)
        # A plan may be applied again: the certificate was written before this document was disposed of.
        if record.disposed_at > listing.until or is_old:
            return record.disposed_at > listing.until
        listing.documents[document] -= 1
        return listing.documents[document] < 0


async def read_certificate_index(
    bucket: Bucket, lister: ObjectLister, environments: Sequence[str], now: datetime
) -> CertificateIndex:
    """Return the index of some environments.

    Raises:
        StorageError: the archive does not answer.
    """
    old, listings, since = set[str](), dict[str, _Listing](), now - _RECENT
    for environment in environments:
        first = f"{CERTIFICATES}{environment}/{since:%Y%m%dT%H%M%S}"
        async with aclosing(lister.walk(f"{CERTIFICATES}{environment}/")) as listing:  # type: ignore[type-var]
            async for some in listing:
                for key in (each.key for each in some if is_certificate_key(each.key, environment)):
                    if key < first:
                        old.add(key)
                    else:
                        listings[key] = await _read_listing(bucket, key)
    return CertificateIndex(bucket, format_utc(since.timestamp()), frozenset(old), listings)


async def _read_listing(bucket: Bucket, key: str) -> _Listing:
    try:
        found = await read_certificate(bucket, key)
    except IntegrityError:
        return _Listing()  # completing it fails, and reports the damage
    if found is None:
        return _Listing()
    return _Listing(found.disposed_until, Counter((each.kind, each.sha256) for each in found.documents))
