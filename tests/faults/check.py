"""Check the result of a run from the archive alone: missing, incomplete and wrong evaluations."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jsonschema import Draft202012Validator, ValidationError

from scripts.simulator.bundles import documents_of
from scripts.simulator.expected import expected_outcome
from scripts.simulator.scenarios import scenario_of
from tasks.ledger.counters import RunCounters
from tasks.model.outcome import Outcome
from tasks.storage.manifest import schema
from tests.conftest import S3
from tests.faults.cluster import IMAGE_BYTES

_ENVIRONMENT = "sandbox"
_PREFIX = "sandbox/"
_CHECKER = Draft202012Validator(schema())


class Archive(Protocol):
    """An archive as its readers see it."""

    def keys(self) -> set[str]:
        """Return the key of every object."""

    def read(self, key: str) -> bytes:
        """Return the bytes of an object."""


@dataclass(frozen=True)
class FolderArchive:
    """An archive in a folder.

    Attributes:
        root: the folder.
    """

    root: Path

    def keys(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()


@dataclass(frozen=True)
class BucketArchive:
    """An archive in a bucket.

    Attributes:
        s3: the server with the bucket.
        prefix: the prefix of each key, with its slash.
    """

    s3: S3
    prefix: str

    def keys(self) -> set[str]:
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.s3.bucket, Prefix=self.prefix)
        return {item["Key"].removeprefix(self.prefix) for page in pages for item in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        return self.s3.client.get_object(Bucket=self.s3.bucket, Key=self.prefix + key)["Body"].read()


@dataclass(frozen=True)
class Result:
    """The findings.

    Attributes:
        evaluations: how many should have ended.
        lost: evaluations without the manifest they must have.
        half: evaluations with documents but no manifest, or whose manifest names a missing document.
        wrong: evaluations whose manifest or documents differ from the bundle of RiskOS.
        unexpected: keys that no manifest mentions, except lists of runs and half-written files of killed processes.
        leftovers: half-written files of killed processes.
    """

    evaluations: int
    lost: tuple[str, ...]
    half: tuple[str, ...]
    wrong: tuple[str, ...]
    unexpected: tuple[str, ...]
    leftovers: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not (self.lost or self.half or self.wrong or self.unexpected)

    def sentence(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.evaluations:,} evaluations, lost {len(self.lost)}, half {len(self.half)}, wrong {len(self.wrong)}"
        )


def examine(archive: Archive, eval_ids: Sequence[str]) -> Result:
    """Check everything in an archive after all evaluations have ended.

    Args:
        archive: contains nothing else.
        eval_ids: every evaluation that was enqueued.
    """
    keys = archive.keys()
    keys -= {key for key in keys if key.startswith("runs/")}
    leftovers = {key for key in keys if key.endswith(".part")}
    keys -= leftovers
    with_objects = {key.removeprefix(_PREFIX).partition("/")[0] for key in keys if key.startswith(_PREFIX)}
    lost, half, wrong, named = [], [], [], set[str]()
    for eval_id in eval_ids:
        expected = expected_outcome(scenario_of(eval_id))
        key = f"{_PREFIX}{eval_id}/manifest.json"
        if key not in keys:
            lost += [eval_id] if expected is not Outcome.FAILED else []
            half += [eval_id] if eval_id in with_objects else []
            continue
        named.add(key)
        manifest = json.loads(archive.read(key))
        required = set(_required_keys(manifest))
        named |= required
        if not required <= keys:
            half.append(eval_id)
        elif not _is_correct(archive, eval_id, manifest, expected):
            wrong.append(eval_id)
    unexpected = keys - named
    return Result(len(eval_ids), tuple(lost), tuple(half), tuple(wrong), tuple(sorted(unexpected)), len(leftovers))


def counters_match(eval_ids: Sequence[str], counters: RunCounters) -> bool:
    """Return whether a run's counters add up and match its evaluations.

    An evaluation whose worker died after the commit ends as unchanged with the next worker.
    """
    expected = Counter(expected_outcome(scenario_of(eval_id)) for eval_id in eval_ids)
    unchanged = counters.outcomes[Outcome.UNCHANGED]
    missing = {outcome: expected[outcome] - counters.outcomes[outcome] for outcome in Outcome}
    del missing[Outcome.UNCHANGED]
    return (
        counters.total == len(set(eval_ids))
        and counters.pending == 0
        and sum(missing.values()) == unchanged
        and min(missing.values()) >= 0
        and missing[Outcome.FAILED] == 0
    )


def _required_keys(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of all objects that a manifest requires."""
    eval_id = manifest["eval_id"]
    yield from (document["key"] for document in manifest["documents"])
    yield from (f"{_PREFIX}{eval_id}/revisions/{number}.json" for number in range(1, manifest["revision"]))
    yield from (f"quarantine/{_PREFIX}{eval_id}/{bundle['sha256']}.zip" for bundle in manifest["quarantined"])


def _is_correct(archive: Archive, eval_id: str, manifest: dict[str, Any], expected: Outcome) -> bool:
    try:
        _CHECKER.validate(manifest)
    except ValidationError:
        return False
    # A damaged bundle is stored before it is requested again, so it makes a revision, and is in quarantine.
    revision = 2 if scenario_of(eval_id).has_damaged_bundle else 1
    facts = (manifest["eval_id"], manifest["environment"], manifest["outcome"], manifest["revision"])
    if facts != (eval_id, _ENVIRONMENT, expected.value, revision) or bool(manifest["quarantined"]) != (revision > 1):
        return False
    served = documents_of(eval_id, IMAGE_BYTES) if manifest["documents"] or expected is Outcome.ARCHIVED else {}
    if expected is Outcome.ARCHIVED and served.keys() != {document["name"] for document in manifest["documents"]}:
        return False
    return all(_is_same(archive, document, served.get(document["name"])) for document in manifest["documents"])


def _is_same(archive: Archive, document: dict[str, Any], served: bytes | None) -> bool:
    stored = archive.read(document["key"])
    digest = hashlib.sha256(stored).hexdigest()
    return (stored, digest, len(stored)) == (served, document["sha256"], document["size"])
