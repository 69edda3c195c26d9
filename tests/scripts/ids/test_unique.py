"""Each ID once, in order, with bounded memory."""

import hashlib
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.ids.unique import Deduplicator, UniqueIds
from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence
from worker.clients.errors import ServiceUnavailable


def _unique(eval_ids: Iterable[str], folder: Path | None = None) -> UniqueIds:
    with Deduplicator(folder) as deduplicator:
        for eval_id in eval_ids:
            deduplicator.add(eval_id)
        return deduplicator.finish()


def _many(count: int) -> list[str]:
    """Return IDs with a common prefix, like those of UUIDv7. Many of them are repeated."""
    rng = random.Random(1)  # noqa: S311  # not a secret
    return [f"01890000-0000-7000-8000-{rng.randrange(count // 3 * 2):012x}" for _ in range(count)]


@given(st.lists(st.integers(0, 40), max_size=200))
def test_unique_ids_keep_the_first_of_each_in_order(numbers: list[int]) -> None:
    eval_ids = [str(UUID(int=number << 64 | number)) for number in numbers]
    with _unique(eval_ids) as ids:
        assert list(ids) == list(dict.fromkeys(eval_ids))
        assert len(ids) + ids.repeated == len(eval_ids)


def test_many_unique_ids_keep_the_first_of_each_in_order(tmp_path: Path) -> None:
    eval_ids = _many(200_001)
    with _unique(eval_ids, tmp_path) as ids:
        assert list(ids) == list(dict.fromkeys(eval_ids))
        assert ids.repeated == len(eval_ids) - len(ids) > 1000


def test_the_fingerprint_covers_the_values_in_order(tmp_path: Path) -> None:
    eval_ids = _many(70_000)
    values = b"".join(UUID(each).bytes for each in dict.fromkeys(eval_ids))
    with _unique(eval_ids, tmp_path) as ids, _unique(eval_ids[::-1], tmp_path) as others:
        assert ids.fingerprint == hashlib.sha256(values).hexdigest() != others.fingerprint


def test_facts_of_repeated_ids_are_merged_when_they_are_spooled(tmp_path: Path) -> None:
    rng, eval_ids = random.Random(2), _many(100_000)  # noqa: S311  # not a secret
    choices = [EvaluationFacts(), EvaluationFacts((Evidence.UNDER_AGE,)), EvaluationFacts((Evidence.MILITARY_ID,), 5.5)]
    # The first facts come late, and most IDs are repeated far behind their first line.
    facts = [rng.choice(choices) if number > 40_000 else choices[0] for number in range(len(eval_ids))]
    expected: dict[str, EvaluationFacts] = {}
    for eval_id, each in zip(eval_ids, facts, strict=True):
        before = expected.get(eval_id, EvaluationFacts())
        evidence = tuple(sorted({*before.evidence, *each.evidence}))
        expected[eval_id] = EvaluationFacts(evidence, before.event_at or each.event_at)
    with Deduplicator(tmp_path) as deduplicator:
        for eval_id, each in zip(eval_ids, facts, strict=True):
            deduplicator.add(eval_id, each)
        ids = deduplicator.finish()
    with ids:
        assert ids.has_facts
        assert dict(zip(ids, ids.facts(), strict=True)) == expected


def test_unique_ids_can_be_iterated_several_times_at_once() -> None:
    eval_ids = [str(uuid4()) for _ in range(25)]
    with _unique(eval_ids) as ids:
        assert [len(chunk) for chunk in ids.chunks(10)] == [10, 10, 5]
        assert [pair for pair in zip(ids.chunks(1), ids, strict=True) if pair[0] != [pair[1]]] == []


def test_unique_ids_may_be_empty() -> None:
    with _unique([]) as ids:
        assert (list(ids), len(ids), ids.repeated) == ([], 0, 0)


def test_only_a_long_list_is_spooled_and_leaves_nothing_on_disk(tmp_path: Path) -> None:
    with _unique(_many(4_000), tmp_path / "missing") as ids:
        assert len(ids) > 1
    with _unique(_many(100_000), tmp_path) as ids:
        assert list(tmp_path.iterdir()) == []
    assert len(ids) > 1


def test_a_long_list_raises_service_unavailable_when_the_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be kept there"):
        _unique(_many(100_000), tmp_path / "missing")


def test_memory_is_bounded_when_the_list_is_long(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with _unique((str(UUID(int=number)) for number in range(100_000)), tmp_path) as ids:
            assert len(ids) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # a set of these IDs would take 15 MB
    finally:
        tracemalloc.stop()
