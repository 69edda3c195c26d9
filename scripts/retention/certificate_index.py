"""Find disposals that no certificate lists yet, because an application was interrupted."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

from scripts.retention.certificate import CERTIFICATES, is_certificate_key, read_certificate
from scripts.verify.objects_api import ObjectLister
from tasks.errors import IntegrityError
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DisposedRecord

_RECENT = timedelta(days=7)
"""For as long, another machine may have written a certificate before an application was through."""


@dataclass(frozen=True, slots=True)
class CertificateIndex:
    """The certificates of an archive: the keys of all, and what the recent ones list.

    Attributes:
        complete: keys of certificates that are not recent, and so list all that names them.
        recent: documents that each recent certificate lists, by kind and hash.
    """

    complete: frozenset[str]
    recent: dict[str, Counter[tuple[str, str]]]

    def find_open(self, manifest: Manifest) -> tuple[DisposedRecord, ...]:
        """Return the disposals of a manifest that no certificate lists; call it once for each manifest."""
        return tuple(each for each in manifest.disposed if each.receipt and self._is_open(each, manifest.environment))

    def _is_open(self, record: DisposedRecord, environment: str) -> bool:
        receipt = record.receipt or ""
        if receipt in self.complete or not is_certificate_key(receipt, environment):
            return False
        listed = self.recent.get(receipt, Counter())
        if not listed[record.kind, record.sha256]:
            return True
        listed[record.kind, record.sha256] -= 1
        return False


async def read_certificate_index(
    bucket: Bucket, lister: ObjectLister, environments: Sequence[str], now: datetime
) -> CertificateIndex:
    """Return the index of some environments.

    Raises:
        StorageError: the archive does not answer.
    """
    complete, recent = set[str](), dict[str, Counter[tuple[str, str]]]()
    for environment in environments:
        since = f"{CERTIFICATES}{environment}/{now - _RECENT:%Y%m%dT%H%M%S}"
        async with aclosing(lister.walk(f"{CERTIFICATES}{environment}/")) as listing:  # type: ignore[type-var]
            async for some in listing:
                for key in (each.key for each in some if is_certificate_key(each.key, environment)):
                    if key < since:
                        complete.add(key)
                    else:
                        recent[key] = await _read_listed(bucket, key)
    return CertificateIndex(frozenset(complete), recent)


async def _read_listed(bucket: Bucket, key: str) -> Counter[tuple[str, str]]:
    try:
        found = await read_certificate(bucket, key)
    except IntegrityError:
        return Counter()  # to complete it fails, and says so
    return Counter((each.kind, each.sha256) for each in found.documents) if found else Counter()
