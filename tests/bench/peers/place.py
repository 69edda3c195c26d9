"""The settings of every peer: URLs of RiskOS and S3, keys of objects, and the IDs to archive."""

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
    """Yield the IDs from the standard input."""
    for line in sys.stdin:
        yield line.strip()


def document_key(eval_id: str, sha256: str) -> str:
    """Return the key of a document."""
    return f"kyc/production/{eval_id}/document/{sha256}.jpg"


def manifest_key(eval_id: str) -> str:
    """Return the key of a manifest."""
    return f"kyc/production/{eval_id}/manifest.json"


def manifest(
    eval_id: str, size: int, documents: Sequence[tuple[str, int, str]], bundle_sha256: str | None = None
) -> bytes:
    """Return the record of an evaluation.

    Args:
        eval_id: of the evaluation.
        size: bytes of its bundle.
        documents: name, size and SHA-256 of each.
        bundle_sha256: if the bundle was hashed.
    """
    return json.dumps(
        {
            "eval_id": eval_id,
            "bundle": {"size": size, "sha256": bundle_sha256},
            "documents": [{"name": name, "size": size, "sha256": sha256} for name, size, sha256 in documents],
        }
    ).encode()
