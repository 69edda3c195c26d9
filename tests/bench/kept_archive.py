"""A read-only S3 that serves the archive of a folder, as fast as one Python process can.

Listings, objects, metadata and tags are those that a worker would have written, derived from the keys and manifests.
"""

import base64
import bisect
import functools
import hashlib
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote

from tests.bench.answers import NO_KEY, response

_PAGE = 1_000
_WRITTEN = formatdate(1_790_000_000, usegmt=True)
_LISTED = "2026-09-21T13:33:20.000Z"
_TYPES = {"json": "application/json", "jpg": "image/jpeg"}
_XML = "application/xml"
_CACHED_FILES = 64
_NO_LOCK = response(404, b"<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>", _XML)


class KeptArchive:
    """Answer as S3 does for an archive that does not change.

    Args:
        root: folder of the archive.
    """

    def __init__(self, root: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._root = root
        self._keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        self._sizes = {key: (root / key).stat().st_size for key in self._keys}
        # A few documents have many names: each is read once.
        self._read = functools.lru_cache(_CACHED_FILES)(lambda _name, key: (root / key).read_bytes())

    def __call__(self, method: str, path: str, query: str) -> bytes:
        """Return the answer to a request; the first part of the path is the bucket."""
        key = unquote(path).partition("/")[2].partition("/")[2]
        if query == "object-lock":
            return _NO_LOCK
        if not key:
            self.counts["listings"] += 1
            return self._listing(parse_qs(query, keep_blank_values=True))
        if key not in self._sizes:
            self.counts["absent"] += 1
            return NO_KEY
        if query == "tagging":
            self.counts["tags"] += 1
            return _tags(key)
        self.counts["heads" if method == "HEAD" else "reads"] += 1
        return self._object(key, with_body=method != "HEAD")

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
        if "delimiter" in query:
            return self._folders(prefix, after)
        start = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after) if after else 0)
        some = [key for key in self._keys[start : start + _PAGE + 1] if key.startswith(prefix)]
        more, some = len(some) > _PAGE, some[:_PAGE]
        listed = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{_LISTED}</LastModified><ETag>&quot;1&quot;</ETag>"
            f"<Size>{self._sizes[key]}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in some
        )
        token = f"<NextContinuationToken>{some[-1]}</NextContinuationToken>" if more else ""
        body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{listed}</ListBucketResult>"
        return response(200, body.encode(), _XML)

    def _folders(self, prefix: str, after: str) -> bytes:
        """Return a page of the names between a prefix and the next slash."""
        found: list[str] = []
        at = bisect.bisect_left(self._keys, max(prefix, after))
        while at < len(self._keys) and self._keys[at].startswith(prefix) and len(found) < _PAGE:
            folder = prefix + self._keys[at].removeprefix(prefix).partition("/")[0]
            found.append(f"{folder}/")
            at = bisect.bisect_left(self._keys, f"{folder}0", at)  # 0 follows the slash
        more = at < len(self._keys) and self._keys[at].startswith(prefix)
        listed = "".join(f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in found)
        token = f"<NextContinuationToken>{self._keys[at]}</NextContinuationToken>" if more else ""
        body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{listed}</ListBucketResult>"
        return response(200, body.encode(), _XML)

    def _object(self, key: str, *, with_body: bool) -> bytes:
        name = key.rpartition("/")[2]
        data = (self._root / key).read_bytes() if name == "manifest.json" else self._read(name, key)
        more = [f'ETag: "{name[:32]}"', f"Last-Modified: {_WRITTEN}", *_object_headers(key, data)]
        answer = response(200, data, _TYPES[name.rpartition(".")[2]], *more)
        return answer if with_body else answer[: len(answer) - len(data)]


def _object_headers(key: str, data: bytes) -> list[str]:
    _, eval_id, *kind, name = key.split("/")
    if not kind:
        return [f"x-amz-meta-eval-id: {eval_id}", f"x-amz-checksum-sha256: {_checksum(hashlib.sha256(data).digest())}"]
    sha256 = name.partition(".")[0]
    return [
        f"x-amz-meta-eval-id: {eval_id}",
        f"x-amz-meta-sha256: {sha256}",
        f"x-amz-meta-document-kind: {kind[0]}",
        f"x-amz-checksum-sha256: {_checksum(bytes.fromhex(sha256))}",
        "x-amz-checksum-type: FULL_OBJECT",
        "x-amz-tagging-count: 3",
    ]


def _checksum(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _tags(key: str) -> bytes:
    environment, _, kind, _ = key.split("/")
    tags = {"environment": environment, "document-kind": kind, "source": "user_uploaded"}
    tag_set = "".join(f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in tags.items())
    return response(200, f"<Tagging><TagSet>{tag_set}</TagSet></Tagging>".encode(), _XML)
