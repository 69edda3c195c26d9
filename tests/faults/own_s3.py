"""An S3 of the tests' own, in this event loop: an archive that may be harmed and looked at at any moment."""

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.check import Archive
from tests.riskos import Server, Wilful, Write, listening

_BEFORE = "/archive/kyc/"
SECRET = "canary-5be1c7a9-secret-of-s3"  # of nobody


@dataclass(frozen=True)
class OwnS3:
    """A bucket behind HTTP; as an archive it is what lies below the prefix.

    Attributes:
        server: where it listens, and everything that it heard.
        wilful: what it holds, and its mood.
    """

    server: Server
    wilful: Wilful = field(default_factory=Wilful)

    @property
    def settings(self) -> dict[str, str]:
        """Environment of a worker whose archive this is."""
        return {
            "DOCV_ARCHIVE_URL": "s3:/" + _BEFORE.rstrip("/"),
            "DOCV_S3_ENDPOINT": self.server.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def keys(self) -> set[str]:
        return {path.removeprefix(_BEFORE) for path in self.wilful.objects}

    def read(self, key: str) -> bytes:
        return self.wilful.objects[_BEFORE + key]


@contextlib.asynccontextmanager
async def own_s3(*script: Write) -> AsyncIterator[OwnS3]:
    """Have an S3 with an empty bucket, which treats its first writes as it is told."""
    wilful = Wilful(*script)
    async with listening(wilful) as server:
        yield OwnS3(server, wilful)


def unkept(archive: Archive) -> list[str]:
    """Return the manifests that name a document which is not there, or not with its bytes."""
    there = archive.keys()
    return [key for key in there if key.endswith("/manifest.json") and not _kept(archive, there, key)]


def _kept(archive: Archive, there: set[str], manifest: str) -> bool:
    documents = json.loads(archive.read(manifest))["documents"]
    return all(
        document["key"] in there and hashlib.sha256(archive.read(document["key"])).hexdigest() == document["sha256"]
        for document in documents
    )
