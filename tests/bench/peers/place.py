"""Where RiskOS and S3 are, what a manifest is, and which IDs are to be archived: what every peer is told."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence

RISKOS = os.environ.get("BENCH_RISKOS", "")
S3 = os.environ.get("BENCH_S3", "")
BUCKET = "archive"
KEY = "bench-key"
TASK = "bench.archive"


def eval_ids() -> Iterator[str]:
    """Yield the IDs as they come in."""
    for line in sys.stdin:
        yield line.strip()


def document_key(eval_id: str, sha256: str) -> str:
    """Return the key of a document."""
    return f"kyc/production/{eval_id}/document/{sha256}.jpg"


def manifest_key(eval_id: str) -> str:
    """Return the key of a manifest."""
    return f"kyc/production/{eval_id}/manifest.json"


def manifest(eval_id: str, bundle: bytes, documents: Sequence[tuple[str, int, str]]) -> bytes:
    """Return the record of an evaluation: name, size and SHA-256 of each document, and the hash of the bundle."""
    return json.dumps(
        {
            "eval_id": eval_id,
            "bundle": {"size": len(bundle), "sha256": hashlib.sha256(bundle).hexdigest()},
            "documents": [{"name": name, "size": size, "sha256": sha256} for name, size, sha256 in documents],
        }
    ).encode()
