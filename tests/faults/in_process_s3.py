"""An S3 server in this event loop: an archive that tests may damage and read at any moment."""

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.check import Archive
from tests.riskos import ScriptedS3, Server, Write, serve_requests

_PREFIX = "/archive/kyc/"
SECRET = "canary-5be1c7a9-secret-of-s3"  # not a real secret


@dataclass(frozen=True)
class OwnS3:
    """A bucket behind HTTP; the archive is everything below the prefix.

    Attributes:
        server: the server with its received requests.
        scripted_s3: its contents and its state.
    """

    server: Server
    scripted_s3: ScriptedS3 = field(default_factory=ScriptedS3)

    @property
    def settings(self) -> dict[str, str]:
        """Environment of a worker with this archive."""
        return {
            "DOCV_ARCHIVE_URL": "s3:/" + _PREFIX.rstrip("/"),
            "DOCV_S3_ENDPOINT": self.server.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def keys(self) -> set[str]:
        return {path.removeprefix(_PREFIX) for path in self.scripted_s3.objects}

    def read(self, key: str) -> bytes:
        return self.scripted_s3.objects[_PREFIX + key]


@contextlib.asynccontextmanager
async def in_process_s3(*script: Write) -> AsyncIterator[OwnS3]:
    """Run an S3 with an empty bucket, which treats its first writes as scripted."""
    scripted_s3 = ScriptedS3(*script)
    async with serve_requests(scripted_s3) as server:
        yield OwnS3(server, scripted_s3)


def find_broken_manifests(archive: Archive) -> list[str]:
    """Return the manifests that name a missing document, or one with other bytes."""
    keys = archive.keys()
    return [key for key in keys if key.endswith("/manifest.json") and not _is_complete(archive, keys, key)]


def _is_complete(archive: Archive, keys: set[str], manifest: str) -> bool:
    documents = json.loads(archive.read(manifest))["documents"]
    return all(
        document["key"] in keys and hashlib.sha256(archive.read(document["key"])).hexdigest() == document["sha256"]
        for document in documents
    )
