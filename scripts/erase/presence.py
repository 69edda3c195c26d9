"""Find an evaluation in the archive, the ledger, and the lists of runs of each environment."""

import asyncio
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from scripts.console.formatting import format_count
from scripts.erase.marker import is_marker
from scripts.erase.stock import ObjectVersion, ObjectVersions
from tasks.model.evaluation import ENVIRONMENTS, Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.matter import HOLDS

_LISTS = "runs/"
_PACKED = ".gz"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_GZIP = 31  # wbits for data with a gzip header


@dataclass(frozen=True, slots=True)
class Presence:
    """The objects and records of an evaluation in one environment.

    Attributes:
        environment: the environment.
        items: object versions in the archive, without the marker of an earlier erasure.
        is_marked: whether that marker exists.
        in_ledger: whether the ledger has the evaluation for an account of this environment, dead letters included.
        lists: keys of the pieces of run lists that name it.
    """

    environment: str
    items: tuple[ObjectVersion, ...]
    is_marked: bool
    in_ledger: bool
    lists: tuple[str, ...]

    @property
    def is_found(self) -> bool:
        """Whether anything at all mentions the evaluation in this environment."""
        return self.must_go or self.is_marked or bool(self.lists)

    @property
    def must_go(self) -> bool:
        """Whether this environment has something that an erasure removes."""
        return bool(self.items) or self.in_ledger

    def sentence(self) -> str:
        """Return the findings in a sentence."""
        runs = sorted({key.split("/")[2] for key in self.lists})
        parts = [
            format_count(len({item.key for item in self.items}), "object") if self.items else "",
            "an entry in the ledger" if self.in_ledger else "",
            "the marker of an earlier erasure" if self.is_marked else "",
            f"it in the lists of {format_count(len(runs), 'run')}, such as {runs[0]}" if runs else "",
        ]
        return f"{self.environment} has {', '.join(filter(None, parts))}"


async def find_presences(
    evaluation: Evaluation,
    bucket: Bucket,
    versions: ObjectVersions,
    *,
    in_ledger: str | None,
    lists: Collection[str],
) -> tuple[Presence, Presence]:
    """Return the findings in the evaluation's environment, and in the other one.

    Args:
        in_ledger: environment for which the ledger has it, or None.
        lists: keys of the pieces of run lists that name it, of any environment.
    """
    found = []
    for environment in sorted(ENVIRONMENTS, key=lambda each: each != evaluation.environment):
        there = Evaluation(evaluation.eval_id, environment)
        items = await asyncio.to_thread(versions.items, there)
        is_marked = is_marker(await bucket.read(there.manifest_key))
        found.append(
            Presence(
                environment,
                tuple(item for item in items if not (is_marked and _is_current_manifest(item, there))),
                is_marked,
                in_ledger == environment,
                tuple(key for key in lists if key.startswith(f"{_LISTS}{environment}/")),
            )
        )
    return found[0], found[1]


def _is_current_manifest(item: ObjectVersion, evaluation: Evaluation) -> bool:
    return item.key == evaluation.manifest_key and item.latest and not item.deletion


async def find_in_lists(
    bucket: Bucket, versions: ObjectVersions, eval_ids: Collection[str], report_damage: Callable[[str], None]
) -> Mapping[str, tuple[str, ...]]:
    """Return the keys of the pieces of run lists, and of the additions to matters, that name each evaluation.

    Args:
        report_damage: called with the key of each one that cannot be read.

    Raises:
        ServiceUnavailable: the archive cannot be listed.
        StorageError: the bucket failed.
    """
    found: dict[str, list[str]] = {eval_id: [] for eval_id in eval_ids}
    keys = [key for prefix in (_LISTS, HOLDS) for key in await asyncio.to_thread(versions.keys, prefix)]
    for key in keys:
        if not key.endswith(_PACKED):
            continue
        stored = await bucket.read(key)
        try:
            ids = await asyncio.to_thread(_parse_ids, stored.data if stored else None)
        except zlib.error:
            report_damage(key)
            continue
        for eval_id in ids.intersection(found):
            found[eval_id].append(key)
    return {eval_id: tuple(keys) for eval_id, keys in found.items()}


def _parse_ids(data: bytes | None) -> set[str]:
    return set(_ID.findall(zlib.decompress(data, _GZIP).decode("ascii", "replace"))) if data is not None else set()
