"""A bucket of moto's server with versions and Object Lock, whose locks follow the clock of the test."""

import copy
import datetime as dt
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from botocore.awsrequest import AWSResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import FakeKey, s3_backends
from obstore.store import S3Store

from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import S3Bucket
from tests.conftest import S3
from tests.retention import answer_lock_requests
from worker.clients.archive import open_archive
from worker.clients.object_lock import LockingClient
from worker.config.settings import Settings

LOCK_DAYS = 300
_PREFIX = "kyc/"
_DOCUMENT = re.compile(r"(?:production|sandbox)/[0-9a-f-]{36}/([a-z_]+)/([0-9a-f]{64})\.\w+")
_RETENTION = "<Retention><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>"


class LockedBucket:
    """The bucket, as moto has it in this process.

    Args:
        s3: moto's server.
        now: returns the simulated time.

    Attributes:
        settings: name the archive.
        archive: the archive, as commands about versions use it.
        bucket: the archive, as commands write to it.
        worker_bucket: the archive, as workers write to it.
    """

    def __init__(self, s3: S3, now: Callable[[], dt.datetime]) -> None:
        self._name, self._now = f"locked-{uuid4()}", now
        s3.client.create_bucket(Bucket=self._name, ObjectLockEnabledForBucket=True)
        self.settings = Settings(
            archive_url=f"s3://{self._name}/{_PREFIX.rstrip('/')}",
            s3_endpoint=s3.endpoint,
            lock_mode="COMPLIANCE",
            lock_days=LOCK_DAYS,
        )
        store = open_archive(self.settings)
        assert isinstance(store, S3Store)
        self.bucket = S3Bucket(store)
        self.worker_bucket = S3Bucket(store, write_client=LockingClient(store, "COMPLIANCE", LOCK_DAYS, now))
        archive = open_s3_archive(self.settings)
        assert archive
        self.archive: S3Archive = archive
        archive.client.meta.events.register("before-send.s3.GetObjectRetention", self._answer_retention)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let moto read the simulated clock, and commands use this client."""
        patch.setattr("moto.s3.models.utcnow", lambda: self._now().replace(tzinfo=None))
        # For each list of versions, moto makes a deep copy of every version in the bucket.
        patch.setattr("moto.s3.models.copy", SimpleNamespace(copy=copy.copy, deepcopy=list))
        for module in ("scripts.erase.versions", "scripts.retention.survey", "scripts.retention.apply_command"):
            patch.setattr(f"{module}.open_s3_archive", lambda _: self.archive)

    def find_documents(self, evaluation: Evaluation) -> set[tuple[str, str]]:
        """Return kind and hash of each version of each document of an evaluation."""
        found = (_DOCUMENT.fullmatch(key) for key, _ in self._versions(evaluation))
        return {(each[1], each[2]) for each in found if each}

    def find_locks(self, evaluation: Evaluation) -> dict[str, dt.date]:
        """Return the first day on which no version is locked any more, by key."""
        locks: dict[str, dt.date] = {}
        for key, version in self._versions(evaluation):
            if version.lock_until:
                until = dt.datetime.fromisoformat(version.lock_until).date()
                locks[key] = max(until, locks.get(key, until))
        return locks

    def _versions(self, evaluation: Evaluation) -> Iterator[tuple[str, FakeKey]]:
        place = f"{evaluation.environment}/{evaluation.eval_id}/"
        for key in [each for each in self._keys if each.startswith((f"{_PREFIX}{place}", f"{_PREFIX}events/{place}"))]:
            for version in self._keys.getlist(key):
                if isinstance(version, FakeKey):
                    yield key.removeprefix(_PREFIX), version

    @property
    def _keys(self) -> Any:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[self._name].keys

    def _answer_retention(self, request: Any, **named: Any) -> AWSResponse:
        """Answer as S3 does; moto does not have this call."""
        url = urlsplit(request.url)
        key, (version_id,) = url.path.removeprefix(f"/{self._name}/"), parse_qs(url.query).get("versionId", [None])
        versions = [each for each in self._keys.getlist(key, []) if isinstance(each, FakeKey)]
        found = [each for each in versions if version_id in {None, each.version_id} and each.lock_until]
        retentions = [_RETENTION.format(each.lock_mode, each.lock_until) for each in found[-1:]]
        return answer_lock_requests({key: retentions[0]} if retentions else {})(request, **named)
