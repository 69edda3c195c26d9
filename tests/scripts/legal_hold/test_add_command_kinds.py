"""`legal-hold add --kind` holds only documents of some kinds; the others can be erased and disposed of."""

import asyncio
import json
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase.erasure import BegunErasure, Erased, ErasureRefused, ErasureResult, ErasureStores
from scripts.erase.files import LocalFiles
from scripts.erase.receipt import ErasureRequest
from scripts.erase.steps import begin_request, finish_request
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from scripts.retention.assessment import DocumentState, assess
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tests.archives import archive, documents
from tests.disposals import make_schedule
from tests.retention import answer_lock_requests
from tests.scripts.legal_hold.conftest import HoldArchive

M, OTHER = "acme-v-bolt", "audit-17"
SELFIE = ("--kind", "selfie")


def fill(held: HoldArchive) -> str:
    """Archive an evaluation with three documents; return its ID."""
    eval_id = str(uuid4())
    asyncio.run(archive(held.bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 1, 100)))
    for matter in (M, OTHER):
        held.run_ok("legal-hold", "create", matter, "--reason", "case 17")
    return eval_id


def list_held_parts(held: HoldArchive, eval_id: str) -> set[str]:
    """Return the folders, or the names if they are in no folder, of the objects under S3's legal hold."""
    found, parts = open_s3_archive(held.settings), set()
    assert found
    assert held.s3
    for item in S3Versions(found).items(Evaluation(eval_id, "sandbox")):
        version = {"Bucket": held.s3.bucket, "Key": found.prefix + item.key, "VersionId": item.version}
        if held.s3.client.get_object_legal_hold(**version)["LegalHold"].get("Status") == "ON":
            parts.add(item.key.split("/")[2])
    return parts


def erase(held: HoldArchive, eval_id: str, *kinds: str) -> ErasureResult:
    async def begin_and_finish() -> ErasureResult:
        stores = ErasureStores(held.bucket, versions, RedisRecords(None))
        request = ErasureRequest("request 4711", "operator", "a-host", kinds=kinds)
        begun = await begin_request(Evaluation(eval_id, "sandbox"), request, stores)
        return await finish_request(begun, stores) if isinstance(begun, BegunErasure) else begun

    found = open_s3_archive(held.settings)
    if found:
        found.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests({}))
    root = held.settings.archive_url.removeprefix("file://")
    versions = S3Versions(found) if found else LocalFiles(Path(root))
    return asyncio.run(begin_and_finish())


def test_only_documents_of_the_kind_are_held_and_the_others_can_be_erased(held: HoldArchive) -> None:
    eval_id = fill(held)
    facts = json.loads(held.run_ok("legal-hold", "add", M, eval_id, *SELFIE, "--json").stdout)
    assert (facts["state"], facts["matters"]) == ("held", [M])
    manifest = held.manifest(eval_id)
    assert manifest
    assert (manifest.matters, manifest.matter_kinds) == ((M,), {M: ("selfie",)})
    assert [each.kinds for each in held.additions(M)] == [("selfie",)]
    if held.s3:
        assert list_held_parts(held, eval_id) == {"selfie", "manifest.json", "revisions"}

    for kinds in (("selfie",), ("document_front", "selfie"), ()):
        refused = erase(held, eval_id, *kinds)
        assert isinstance(refused, ErasureRefused)
        assert "it is under the legal hold acme-v-bolt" in refused.why
    assert isinstance(erase(held, eval_id, "document_front"), Erased)

    held.run_ok("legal-hold", "release", M, "--reason", "settled")
    manifest = held.manifest(eval_id)
    assert manifest
    assert (manifest.matters, manifest.matter_kinds) == ((), {})
    if held.s3:
        assert list_held_parts(held, eval_id) == set()
    assert isinstance(erase(held, eval_id, "selfie"), Erased)
    held.run_ok("verify", "-", "--grace", "0", given=eval_id)


def test_a_later_addition_extends_the_held_kinds(folder: HoldArchive) -> None:
    eval_id = fill(folder)
    add = ("legal-hold", "add", M, eval_id)
    for arguments, limits in (
        (SELFIE, {M: ("selfie",)}),
        (("--kind", "document_front"), {M: ("document_front", "selfie")}),
        (SELFIE, {M: ("document_front", "selfie")}),
        ((), {}),
        (SELFIE, {}),
    ):
        folder.run_ok(*add, *arguments)
        manifest = folder.manifest(eval_id)
        assert manifest
        assert (manifest.matters, manifest.matter_kinds) == ((M,), limits)
    assert [each.kinds for each in folder.additions(M)] == [("selfie",), ("document_front",), ()]
    assert ", only selfie" in folder.run_ok("legal-hold", "show", M).stdout
    assert json.loads(folder.run_ok("legal-hold", "show", M, "--json").stdout)["additions"][0]["kinds"] == ["selfie"]


@pytest.mark.parametrize("first", [M, OTHER])
def test_a_release_frees_only_documents_that_no_other_matter_covers(bucket: HoldArchive, first: str) -> None:
    eval_id = fill(bucket)
    bucket.run_ok("legal-hold", "add", M, eval_id, *SELFIE)
    bucket.run_ok("legal-hold", "add", OTHER, eval_id)
    everything = {"selfie", "document_front", "document_back", "manifest.json", "revisions"}
    assert list_held_parts(bucket, eval_id) == everything
    bucket.run_ok("legal-hold", "release", first, "--reason", "settled")
    left = {"selfie", "manifest.json", "revisions"} if first == OTHER else everything
    assert list_held_parts(bucket, eval_id) == left


def test_documents_of_other_kinds_still_become_due(folder: HoldArchive) -> None:
    eval_id = fill(folder)
    folder.run_ok("legal-hold", "add", M, eval_id, *SELFIE)
    manifest = folder.manifest(eval_id)
    assert manifest
    assessed = assess(make_schedule({"keep_for": "1y", "clock": "archived"}), manifest, {}, date(2999, 1, 1))
    states = {each.document.kind: each.state for each in assessed}
    assert states == {
        "document_front": DocumentState.DUE,
        "document_back": DocumentState.DUE,
        "selfie": DocumentState.HOLD,
    }


def test_a_later_document_is_held_only_if_its_kind_is(folder: HoldArchive) -> None:
    eval_id = fill(folder)
    folder.run_ok("legal-hold", "add", M, eval_id, *SELFIE)
    asyncio.run(archive(folder.bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 2, 100)))
    manifest = folder.manifest(eval_id)
    assert manifest
    assert manifest.matter_kinds == {M: ("selfie",)}
    assert [manifest.is_held(kind) for kind in ("selfie", "document_front", None)] == [True, False, True]
