"""Prove what a run left behind from the archive alone: what is missing, what is half there, what is wrong."""

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
_BEFORE = "sandbox/"
_CHECKER = Draft202012Validator(schema())


class Archive(Protocol):
    """An archive as it is looked at from outside."""

    def keys(self) -> set[str]:
        """Return the key of everything that is in it."""

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
        s3: where the bucket is.
        prefix: what stands before each key, with its slash.
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
    """What was found.

    Attributes:
        evaluations: how many should have ended.
        lost: evaluations without the manifest they must have.
        half: evaluations with documents but no manifest, or a manifest that names what is not there.
        wrong: evaluations whose manifest or documents differ from what RiskOS served.
        strange: keys that nobody speaks of, except what a killed process left half written.
        leftovers: files that a killed process left half written; nobody speaks of them.
    """

    evaluations: int
    lost: tuple[str, ...]
    half: tuple[str, ...]
    wrong: tuple[str, ...]
    strange: tuple[str, ...]
    leftovers: int

    @property
    def sound(self) -> bool:
        """Whether everything is as it must be."""
        return not (self.lost or self.half or self.wrong or self.strange)

    def sentence(self) -> str:
        """Return the figures in a line."""
        return (
            f"{self.evaluations:,} evaluations, lost {len(self.lost)}, half {len(self.half)}, wrong {len(self.wrong)}"
        )


def examine(archive: Archive, eval_ids: Sequence[str]) -> Result:
    """Look at everything in an archive after all evaluations have ended.

    Args:
        archive: nothing else may be in it.
        eval_ids: every evaluation that was enqueued.
    """
    there = archive.keys()
    leftovers = {key for key in there if key.endswith(".part")}
    there -= leftovers
    with_something = {key.removeprefix(_BEFORE).partition("/")[0] for key in there if key.startswith(_BEFORE)}
    lost, half, wrong, named = [], [], [], set[str]()
    for eval_id in eval_ids:
        expected = expected_outcome(scenario_of(eval_id))
        key = f"{_BEFORE}{eval_id}/manifest.json"
        if key not in there:
            lost += [eval_id] if expected is not Outcome.FAILED else []
            half += [eval_id] if eval_id in with_something else []
            continue
        named.add(key)
        manifest = json.loads(archive.read(key))
        mentioned = set(_mentioned(manifest))
        named |= mentioned
        if not mentioned <= there:
            half.append(eval_id)
        elif not _right(archive, eval_id, manifest, expected):
            wrong.append(eval_id)
    strange = there - named
    return Result(len(eval_ids), tuple(lost), tuple(half), tuple(wrong), tuple(sorted(strange)), len(leftovers))


def counted_right(eval_ids: Sequence[str], counters: RunCounters) -> bool:
    """Return whether a run's counters add up and fit its evaluations.

    An evaluation that a worker had committed when it died ends as unchanged with the next one.
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


def _mentioned(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of everything that must be there because of a manifest."""
    eval_id = manifest["eval_id"]
    yield from (document["key"] for document in manifest["documents"])
    yield from (f"{_BEFORE}{eval_id}/revisions/{number}.json" for number in range(1, manifest["revision"]))
    if manifest["outcome"] == Outcome.UNREADABLE:
        yield f"quarantine/{_BEFORE}{eval_id}/{manifest['bundle']['sha256']}.zip"


def _right(archive: Archive, eval_id: str, manifest: dict[str, Any], expected: Outcome) -> bool:
    try:
        _CHECKER.validate(manifest)
    except ValidationError:
        return False
    facts = (manifest["eval_id"], manifest["environment"], manifest["outcome"], manifest["revision"])
    if facts != (eval_id, _ENVIRONMENT, expected.value, 1):
        return False
    served = documents_of(eval_id, IMAGE_BYTES) if manifest["documents"] or expected is Outcome.ARCHIVED else {}
    if expected is Outcome.ARCHIVED and served.keys() != {document["name"] for document in manifest["documents"]}:
        return False
    return all(_same(archive, document, served.get(document["name"])) for document in manifest["documents"])


def _same(archive: Archive, document: dict[str, Any], served: bytes | None) -> bool:
    stored = archive.read(document["key"])
    digest = hashlib.sha256(stored).hexdigest()
    return (stored, digest, len(stored)) == (served, document["sha256"], document["size"])
