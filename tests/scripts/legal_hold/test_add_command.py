"""`legal-hold add` names the matter in the manifest and sets S3's legal hold, and can be repeated at any moment."""

import asyncio
import json
import random
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase.erasure import Erased
from scripts.legal_hold import add_command, holder, s3_holds
from scripts.legal_hold.s3_holds import hold_all
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.matter import MatterState, begin_release, complete_release
from tests.archives import archive, documents, eval_ids, store_run
from tests.conftest import S3
from tests.retention import answer_lock_requests
from tests.scripts.legal_hold.conftest import HoldArchive, SimulatedCrash, open_holds

M = "acme-v-bolt"
CREATE = ("legal-hold", "create", M, "--reason", "case 17")
ADD = ("legal-hold", "add", M)


def test_add_holds_every_version_of_every_object(held: HoldArchive) -> None:
    eval_id, other = held.fill(), held.fill()
    held.run_ok(*CREATE)
    result = held.run_ok(*ADD, eval_id, "--json")
    facts = json.loads(result.stdout)
    assert (facts["eval_id"], facts["state"], facts["matters"], facts["documents"]) == (eval_id, "held", [M], 1)
    # A document, a bundle, two manifests and the copy of the first one.
    assert facts["versions"] == (5 if held.s3 else 0)
    assert held.is_held(eval_id, M)
    assert held.matters(other) == ()
    assert held.statuses(other) <= {"NONE"}
    (addition,) = held.additions(M)
    assert (addition.eval_ids, addition.added_by) == ((eval_id,), "operator")
    held.run_ok("verify", "-", "--grace", "0", given=eval_id)


def test_a_second_add_changes_nothing(folder: HoldArchive) -> None:
    eval_id = folder.fill()
    folder.run_ok(*CREATE)
    folder.run_ok(*ADD, eval_id)
    before = folder.manifest(eval_id)
    result = folder.run_ok(*ADD, eval_id)
    assert f"1 evaluation is under matter {M} (1 added earlier)" in result.stdout
    assert folder.manifest(eval_id) == before
    assert len(folder.additions(M)) == 1


def test_add_takes_files_standard_input_ids_and_runs(folder: HoldArchive, tmp_path: Path) -> None:
    ids = [folder.fill() for _ in range(5)]
    folder.run_ok(*CREATE)
    (tmp_path / "ids.csv").write_text(f"name,eval_id\nx,{ids[0]}\n")
    asyncio.run(store_run(folder.bucket, ids[3:], "q3"))
    result = folder.run(*ADD, "ids.csv", ids[1], "-", "--run", "q3", given=f"{ids[2]}\nno ID\n")
    assert result.exit_code == 1
    assert "standard input, line 2: 'no ID' is not a valid evaluation ID" in result.stderr
    assert f"5 evaluations are under matter {M}" in result.stdout
    assert all(folder.is_held(eval_id, M) for eval_id in ids)


def test_a_run_without_a_list_is_a_usage_error(folder: HoldArchive) -> None:
    folder.run_ok(*CREATE)
    result = folder.run(*ADD, "--run", "q3")
    assert (result.exit_code, "no list of run q3" in result.stderr) == (2, True)
    assert folder.run(*ADD).exit_code == 2


def test_a_long_list_is_recorded_in_bounded_pieces(folder: HoldArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add_command, "ADDED_AT_ONCE", 2)
    ids = [folder.fill() for _ in range(5)]
    folder.run_ok(*CREATE)
    folder.run_ok(*ADD, *ids)
    assert sorted(len(each.eval_ids) for each in folder.additions(M)) == [1, 2, 2]
    assert {eval_id for each in folder.additions(M) for eval_id in each.eval_ids} == set(ids)


def test_missing_erased_and_damaged_evaluations_are_refused(held: HoldArchive) -> None:
    good, erased, damaged, absent = held.fill(), held.fill(), held.fill(), str(uuid4())
    held.run_ok(*CREATE)
    assert isinstance(held.erase(erased), Erased)
    key = Evaluation(damaged, "sandbox").manifest_key
    if held.s3:
        held.s3.client.put_object(Bucket=held.s3.bucket, Key=f"kept/here/{key}", Body=b"{}")
    else:
        Path("archive", key).write_text("{}")

    result = held.run(*ADD, good, erased, damaged, absent)

    assert result.exit_code == 1
    assert f"{erased}: not held: it was erased, see receipts/" in result.stderr
    assert f"{damaged}: not held: an object in the archive is not valid: a manifest is damaged" in result.stderr
    assert f"{absent}: not held: it is not archived" in result.stderr
    assert held.is_held(good, M)
    assert held.manifest(absent) is None
    assert held.matters(erased) == ()
    (addition,) = held.additions(M)
    assert addition.eval_ids == (good,)


def test_even_if_absent_writes_a_manifest_that_is_not_final(held: HoldArchive) -> None:
    absent = str(uuid4())
    held.run_ok(*CREATE)
    held.run_ok(*ADD, absent, "--even-if-absent")
    held.run_ok(*ADD, absent, "--even-if-absent")

    manifest = held.manifest(absent)
    assert manifest
    assert (manifest.outcome, manifest.revision, manifest.is_provisional) == (Outcome.NO_DOCUMENTS, 1, True)
    assert (manifest.trigger.source, manifest.response.status) == ("legal_hold", 0)
    assert held.is_held(absent, M)
    held.run_ok("verify", "-", "--grace", "0", given=absent)
    audited = held.run_ok("audit", "-", given=absent)
    assert f"{absent},no_documents,0,0" in audited.stdout

    asyncio.run(archive(held.bucket, absent, Outcome.ARCHIVED, documents(absent, 1, 100)))
    after = held.manifest(absent)
    assert after
    assert (after.outcome, after.matters, len(after.documents)) == (Outcome.ARCHIVED, (M,), 3)


def test_a_worker_that_archives_meanwhile_keeps_the_matter(held: HoldArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker writes the first manifest, or the next one, between the look-up and the write of the command."""
    eval_id = str(uuid4())
    held.run_ok(*CREATE)
    amend = holder.amend

    async def amend_then_archive(bucket: object, evaluation: Evaluation, *arguments: object) -> object:
        monkeypatch.setattr(holder, "amend", amend)
        found = await amend(bucket, evaluation, *arguments)  # type: ignore[arg-type]
        await archive(bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 1, 100))  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(holder, "amend", amend_then_archive)
    held.run_ok(*ADD, eval_id, "--even-if-absent")
    manifest = held.manifest(eval_id)
    assert manifest
    assert (manifest.outcome, len(manifest.documents)) == (Outcome.ARCHIVED, 3)
    assert held.is_held(eval_id, M)


def test_an_object_written_while_holds_are_set_is_held(bucket: HoldArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    eval_id = bucket.fill()
    bucket.run_ok(*CREATE)
    set_hold, s3 = s3_holds._set_hold, bucket.s3
    assert s3

    def write_then_set_hold(*arguments: object) -> None:
        monkeypatch.setattr(s3_holds, "_set_hold", set_hold)
        s3.client.put_object(Bucket=s3.bucket, Key=f"kept/here/sandbox/{eval_id}/selfie/{'a' * 64}.jpg", Body=b"late")
        set_hold(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(s3_holds, "_set_hold", write_then_set_hold)
    facts = json.loads(bucket.run_ok(*ADD, eval_id, "--json").stdout)
    assert facts["versions"] == 6
    assert bucket.is_held(eval_id, M)


def test_a_version_that_is_removed_meanwhile_does_not_stop_the_command(bucket: HoldArchive) -> None:
    evaluation, archive_ = Evaluation(bucket.fill(), "sandbox"), open_s3_archive(bucket.settings)
    assert archive_
    archive_.client.meta.events.register(
        "before-send.s3.PutObjectLegalHold", answer_lock_requests({"manifest.json": "<x/>"}, "NoSuchVersion")
    )
    assert hold_all(archive_, evaluation, lambda _: "ON") == 3


def test_versions_behind_a_delete_marker_are_held(bucket: HoldArchive) -> None:
    eval_id, s3, archive_ = bucket.fill(), bucket.s3, open_s3_archive(bucket.settings)
    assert s3
    assert archive_
    s3.client.delete_object(Bucket=s3.bucket, Key=f"kept/here/sandbox/{eval_id}/manifest.json")
    assert hold_all(archive_, Evaluation(eval_id, "sandbox"), lambda _: "ON") == 3


def test_a_bucket_without_object_lock_is_refused(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    held = open_holds(f"s3://{s3.bucket}/kept/here", s3, monkeypatch)
    eval_id = held.fill()
    result = held.run(*ADD, eval_id)
    assert result.exit_code == 2
    assert "has no Object Lock, so S3 has no legal hold there; turn Object Lock on first" in result.stderr
    assert held.matters(eval_id) == ()


@pytest.mark.parametrize("matter", ["Upper", "x" * 49, "a/b", "-"])
def test_an_invalid_matter_name_is_refused(folder: HoldArchive, matter: str) -> None:
    result = folder.run("legal-hold", "add", "--", matter, str(uuid4()))
    assert result.exit_code == 2
    assert "lower-case letters, digits and hyphens" in result.stderr


def test_nothing_is_added_to_a_matter_that_does_not_exist_or_is_released(folder: HoldArchive) -> None:
    eval_id = folder.fill()
    result = folder.run(*ADD, eval_id)
    assert (result.exit_code, f"matter {M} does not exist" in result.stderr) == (2, True)
    folder.run_ok(*CREATE)
    folder.run_ok("legal-hold", "release", M, "--reason", "settled")
    result = folder.run(*ADD, eval_id)
    assert (result.exit_code, f"the release of matter {M} began" in result.stderr) == (2, True)
    assert folder.matters(eval_id) == ()


@pytest.mark.parametrize("call", ["look_up", "hold"])
def test_nothing_stays_under_a_matter_that_is_released_while_evaluations_are_added(
    held: HoldArchive, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    eval_id = held.fill()
    held.run_ok(*CREATE)
    real = getattr(holder.Holder, call)

    async def release_then_call(self: holder.Holder, evaluation: Evaluation) -> holder.HoldResult:
        # Another machine releases the matter, and finds no addition, or handles it before the evaluation is held.
        await begin_release(self.bucket, M, "settled", "counsel")
        await complete_release(self.bucket, M)
        result: holder.HoldResult = await real(self, evaluation)
        return result

    monkeypatch.setattr(holder.Holder, call, release_then_call)
    result = held.run(*ADD, eval_id)
    assert (result.exit_code, f"the release of matter {M} began" in result.stderr) == (2, True)
    assert held.matters(eval_id) == ()
    assert "ON" not in held.statuses(eval_id)
    assert held.record(M).state is MatterState.RELEASED


def test_the_same_command_completes_an_addition_that_was_killed_at_any_call(held: HoldArchive) -> None:
    # Calls of moto are slow, so only some are interrupted, from a random first one.
    step = 16 if held.s3 else 1
    calls = random.randrange(step)  # noqa: S311  # not a secret
    while True:
        matter, ids = f"m{calls}", [held.fill()] if held.s3 else [held.fill(), str(uuid4())]
        add = ("legal-hold", "add", matter, *ids, "--even-if-absent")
        held.run_ok("legal-hold", "create", matter, "--reason", "case 17")
        held.cut_off("add_command", calls)
        killed = held.run(*add)
        held.cut_off("add_command", -1)
        held.run_ok(*add)
        assert all(held.is_held(eval_id, matter) for eval_id in ids)
        added = {eval_id for each in held.additions(matter) for eval_id in each.eval_ids}
        assert added == set(ids)
        if killed.exit_code == 0:
            break
        assert isinstance(killed.exception, SimulatedCrash)
        calls += step
    assert calls > 10
    held.run_ok("verify", "-", "--grace", "0", given="\n".join(ids))


def test_two_machines_may_add_the_same_evaluations_at_once(held: HoldArchive) -> None:
    ids = [held.fill() for _ in range(2)]
    held.run_ok(*CREATE)

    async def add_twice() -> None:
        holders = [holder.Holder(held.bucket, open_s3_archive(held.settings), M) for _ in range(2)]
        evaluations = [Evaluation(eval_id, "sandbox") for eval_id in ids]
        results = await asyncio.gather(*(each.hold(evaluation) for each in holders for evaluation in evaluations))
        assert [each.why for each in results] == [None] * 4

    asyncio.run(add_twice())
    assert all(held.is_held(eval_id, M) for eval_id in ids)


def test_a_duplicate_id_is_held_and_printed_once(folder: HoldArchive, tmp_path: Path) -> None:
    (eval_id,) = eval_ids(1)
    folder.fill(eval_id)
    folder.run_ok(*CREATE)
    result = folder.run_ok(*ADD, eval_id, eval_id.upper(), "--json")
    assert len(result.stdout.splitlines()) == 1
    assert not (tmp_path / ".docv-archive").exists()
