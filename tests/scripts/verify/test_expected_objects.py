"""Manifests require their objects. A key of another evaluation is reported and not required."""

import pytest

from scripts.verify.expected_objects import expected_objects
from scripts.verify.record import ManifestRecord
from tasks.model.outcome import Outcome, Restriction
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DocumentRecord, RestrictedRecord
from tests.disposals import disposed_of
from tests.scripts.verify.manifests import CONTENT, EVALUATION, SHA256, document, manifest

KEY = EVALUATION.document_key("selfie", SHA256, "jpg")


def record(source: Manifest) -> ManifestRecord:
    return ManifestRecord(f"manifest {source.revision}", source, "0" * 64)


def test_a_document_is_expected_with_its_metadata_and_tags() -> None:
    claims = expected_objects(EVALUATION, [record(manifest())])
    (claim,) = claims.documents.values()
    assert (claim.key, claim.size, claim.stored_size, claim.sha256) == (KEY, len(CONTENT), len(CONTENT), SHA256)
    assert claim.metadata == {"eval-id": EVALUATION.eval_id, "sha256": SHA256, "document-kind": "selfie"}
    assert claim.tags == {
        "environment": {"sandbox"},
        "document-kind": {"selfie"},
        "source": {"user_uploaded"},
    }
    assert (claim.locked, claims.bundles, claims.differences) == (True, [], [])


def test_a_document_that_must_not_be_kept_needs_no_lock() -> None:
    restricted = RestrictedRecord(reason=Restriction.MINOR, evidence=("reason_code:R844",), withheld=None)
    (claim,) = expected_objects(EVALUATION, [record(manifest(restricted=restricted))]).documents.values()
    assert not claim.locked


def test_a_sealed_document_is_expected_with_its_sealed_size() -> None:
    claims = expected_objects(EVALUATION, [record(manifest(documents=(document(sealed_with="2026"),)))])
    (claim,) = claims.documents.values()
    assert claim.stored_size > claim.size == len(CONTENT)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (document(key="/etc/passwd"), "key_outside"),
        (document(key=f"sandbox/{EVALUATION.eval_id}/../x"), "key_outside"),
        (document(key=KEY.replace("9a10", "9a11")), "key_outside"),
        (document(key=KEY.replace("sandbox", "production")), "key_outside"),
        (document(sha256="0" * 64), "key_wrong"),
        (document(kind="document_front"), "key_wrong"),
        (document(key=KEY.replace("jpg", "E X E")), "key_wrong"),
        (document(key=KEY.replace("jpg", "")), "key_wrong"),
        (document(key=KEY.replace(".jpg", "")), "key_wrong"),
        (document(key=KEY + ".exe"), "key_wrong"),
    ],
)
def test_a_key_of_another_evaluation_is_reported_and_not_required(wrong: DocumentRecord, problem: str) -> None:
    claims = expected_objects(EVALUATION, [record(manifest(documents=(wrong,)))])
    assert [(each.key, each.problem.value) for each in claims.differences] == [(wrong.key, problem)]
    assert claims.documents == {}


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/later", "application/octet-stream"])
@pytest.mark.parametrize("extension", ["jpg", "bin", "ltr", "JPEG"])
def test_a_key_is_checked_by_kind_and_hash_whatever_its_extension(media_type: str, extension: str) -> None:
    stored = document(media_type=media_type, key=KEY.replace("jpg", extension))
    claims = expected_objects(EVALUATION, [record(manifest(documents=(stored,)))])
    assert (list(claims.documents), claims.differences) == ([stored.key], [])


def test_a_document_listed_by_a_former_manifest_only_is_reported() -> None:
    former, current = record(manifest()), record(manifest(2, b"x", documents=()))
    claims = expected_objects(EVALUATION, [current, former])
    assert [(each.key, each.problem.value) for each in claims.differences] == [(KEY, "revision_differs")]
    assert "revision 1 lists it" in claims.differences[0].detail
    assert list(claims.documents) == [KEY]


def test_the_source_tag_may_come_from_either_of_two_names() -> None:
    both = (document(), document(name="case/attachments/a.jpg"))
    (claim,) = expected_objects(EVALUATION, [record(manifest(documents=both))]).documents.values()
    assert len(claim.tags["source"]) == 2


def test_an_unreadable_manifest_must_list_its_bundle() -> None:
    unreadable = {"outcome": Outcome.UNREADABLE, "documents": ()}
    (bundle,) = expected_objects(EVALUATION, [record(manifest(**unreadable))]).bundles
    assert (bundle.key, bundle.locked) == (EVALUATION.quarantine_key("b" * 64), False)
    claims = expected_objects(EVALUATION, [record(manifest(**unreadable, bundle=None))])
    assert [(each.problem.value, each.detail) for each in claims.differences] == [
        ("manifest_damaged", "its outcome is unreadable, but it lists no bundle")
    ]


def test_a_disposed_document_of_a_former_manifest_is_not_required() -> None:
    current = manifest(2, b"x", documents=(), disposed=(disposed_of(document()),))
    claims = expected_objects(EVALUATION, [record(current), record(manifest())])
    assert (claims.documents, claims.differences) == ({}, [])
    assert list(claims.disposed) == [KEY]


def test_a_disposal_that_the_current_manifest_lost_is_reported() -> None:
    before = manifest(2, b"x", documents=(), disposed=(disposed_of(document()),))
    claims = expected_objects(EVALUATION, [record(manifest(3, b"x", documents=())), record(before), record(manifest())])
    assert [(each.key, each.problem.value) for each in claims.differences] == [(KEY, "revision_differs")]


def test_a_document_that_is_both_held_and_disposed_of_is_reported() -> None:
    other = document(kind="other", key=EVALUATION.document_key("other", SHA256, "jpg"))
    claims = expected_objects(EVALUATION, [record(manifest(documents=(other,), disposed=(disposed_of(document()),)))])
    assert [(each.key, each.problem.value) for each in claims.differences] == [("manifest 1", "manifest_damaged")]


def test_a_disposal_with_a_key_of_another_evaluation_is_reported() -> None:
    foreign = disposed_of(document(key=KEY.replace("9a10", "9a11")))
    claims = expected_objects(EVALUATION, [record(manifest(documents=(), disposed=(foreign,)))])
    assert [(each.key, each.problem.value) for each in claims.differences] == [(foreign.key, "key_outside")]
    assert claims.disposed == {}
