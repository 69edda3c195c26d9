"""`legal-hold release` frees evaluations that no other matter holds. If it is interrupted, the rest stays held."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from scripts.legal_hold import holder
from tasks.model.evaluation import Evaluation
from tasks.storage.matter import MatterState
from tests.scripts.legal_hold.conftest import HoldArchive, SimulatedCrash


def hold(held: HoldArchive, matter: str, *eval_ids: str) -> None:
    held.run_ok("legal-hold", "create", matter, "--reason", "case 17")
    held.run_ok("legal-hold", "add", matter, *eval_ids)


def release(matter: str) -> tuple[str, ...]:
    return ("legal-hold", "release", matter, "--reason", "settled", "--by", "counsel")


def test_an_evaluation_is_free_when_all_of_its_matters_are_released(held: HoldArchive) -> None:
    only, both = held.fill(), held.fill()
    hold(held, "one", only, both)
    hold(held, "two", both)
    assert held.is_held(both, "one", "two")

    result = held.run_ok(*release("one"))
    assert "matter one is released: 2 evaluations, 1 of them still under another matter" in result.stdout
    assert held.is_held(only)
    assert held.is_held(both, "two")
    record = held.record("one")
    assert (record.state, record.released_by, record.release_reason) == (MatterState.RELEASED, "counsel", "settled")

    result = held.run_ok(*release("two"), "--json")
    facts = json.loads(result.stdout)
    assert (facts["eval_id"], facts["environment"], facts["state"], facts["matters"]) == (
        both,
        "sandbox",
        "released",
        [],
    )
    assert (facts["versions"] > 5) == (held.s3 is not None)
    assert held.is_held(both)
    held.run_ok("verify", "-", "--grace", "0", given=f"{only}\n{both}")


def test_a_second_release_keeps_the_first_reason(folder: HoldArchive) -> None:
    hold(folder, "one", folder.fill())
    folder.run_ok(*release("one"))
    before = folder.record("one")
    folder.run_ok("legal-hold", "release", "one", "--reason", "another")
    assert folder.record("one") == before


def test_release_covers_both_environments(folder: HoldArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    eval_id = folder.fill()
    hold(folder, "one", eval_id)
    monkeypatch.setenv("DOCV_ENVIRONMENT", "production")
    folder.run_ok(*release("one"))
    assert folder.matters(eval_id) == ()


def test_a_matter_that_does_not_exist_is_a_usage_error(folder: HoldArchive) -> None:
    result = folder.run(*release("one"))
    assert (result.exit_code, "matter one does not exist" in result.stderr) == (2, True)


def test_a_matter_is_released_only_when_all_of_its_evaluations_are_released(folder: HoldArchive) -> None:
    good, damaged = folder.fill(), folder.fill()
    hold(folder, "one", good, damaged)
    path = Path("archive", Evaluation(damaged, "sandbox").manifest_key)
    manifest = path.read_bytes()
    path.write_bytes(b"{}")

    result = folder.run(*release("one"))

    assert result.exit_code == 1
    assert f"{damaged}: not released: an object in the archive is not valid" in result.stderr
    assert "run the same command again" in result.stderr
    assert folder.matters(good) == ()
    assert folder.record("one").state is MatterState.RELEASING
    path.write_bytes(manifest)
    folder.run_ok(*release("one"))
    assert folder.matters(damaged) == ()
    assert folder.record("one").state is MatterState.RELEASED


@pytest.mark.parametrize("other", ["added", "released"])
def test_s3_holds_match_the_manifest_when_another_machine_changes_it_during_a_release(
    bucket: HoldArchive, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    eval_id = bucket.fill()
    hold(bucket, "one", eval_id)
    if other == "released":
        hold(bucket, "two", eval_id)
    real = holder.hold_all

    def change_then_hold_all(s3: S3Archive, evaluation: Evaluation, status: str) -> int:
        monkeypatch.setattr(holder, "hold_all", real)
        another = holder.Holder(bucket.bucket, s3, "two")
        asyncio.run((another.hold if other == "added" else another.release)(evaluation))
        return real(s3, evaluation, status)

    monkeypatch.setattr(holder, "hold_all", change_then_hold_all)
    bucket.run_ok(*release("one"))
    assert bucket.is_held(eval_id, *(["two"] if other == "added" else []))


def test_two_machines_may_release_the_same_matter_at_once(held: HoldArchive) -> None:
    eval_id = held.fill()
    hold(held, "one", eval_id)
    s3 = open_s3_archive(held.settings) if held.s3 else None

    async def release_twice() -> None:
        evaluation = Evaluation(eval_id, "sandbox")
        results = await asyncio.gather(*(holder.Holder(held.bucket, s3, "one").release(evaluation) for _ in range(2)))
        assert [each.why for each in results] == [None, None]

    asyncio.run(release_twice())
    assert held.is_held(eval_id)


def test_the_same_command_completes_a_release_that_was_killed_at_any_call(held: HoldArchive) -> None:
    # Calls of moto are slow, so only some are interrupted, from a random first one.
    step = 16 if held.s3 else 1
    calls = random.randrange(step)  # noqa: S311  # not a secret
    while True:
        matter, ids = f"m{calls}", [held.fill()] if held.s3 else [held.fill(), held.fill()]
        hold(held, matter, *ids)
        held.cut_off("release_command", calls)
        killed = held.run(*release(matter))
        # Evaluations that the command did not reach are still held completely, and the matter is not released.
        for eval_id in ids:
            if held.matters(eval_id) == (matter,):
                assert "OFF" not in held.statuses(eval_id)
        if killed.exit_code == 0:
            break
        assert isinstance(killed.exception, SimulatedCrash)
        assert held.record(matter).state is not MatterState.RELEASED
        held.cut_off("release_command", -1)
        held.run_ok(*release(matter))
        assert all(held.is_held(eval_id) for eval_id in ids)
        assert held.record(matter).state is MatterState.RELEASED
        calls += step
    assert calls > 10
    held.run_ok("verify", "-", "--grace", "0", given="\n".join(ids))
