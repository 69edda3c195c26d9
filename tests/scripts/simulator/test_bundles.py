import io
import zipfile

import pytest
from PIL import Image

from scripts.simulator.bundles import bundle_of, documents_of, zip_of
from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for

DATA_DESCRIPTOR, UTF8_NAME = 1 << 3, 1 << 11


def members(scenario: Scenario) -> list[zipfile.ZipInfo]:
    return zipfile.ZipFile(io.BytesIO(bundle_of(eval_id_for(scenario, 1)))).infolist()


def names(scenario: Scenario) -> list[str]:
    return [member.filename for member in members(scenario)]


@pytest.mark.parametrize("scenario", LAYOUTS)
def test_a_bundle_has_the_documents_of_its_evaluation_and_nothing_else(scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 1)
    with zipfile.ZipFile(io.BytesIO(bundle_of(eval_id))) as bundle:
        held = {member.filename: bundle.read(member) for member in bundle.infolist() if not member.is_dir()}
    assert held == documents_of(eval_id)


@pytest.mark.parametrize("scenario", LAYOUTS)
def test_every_captured_picture_is_a_jpeg(scenario: Scenario) -> None:
    for name, content in documents_of(eval_id_for(scenario, 1)).items():
        if not name.startswith(("case_attachments/", "user_uploaded/somewhere_new/")):
            with Image.open(io.BytesIO(content)) as image:
                image.verify()
                assert image.format == "JPEG"


def test_a_bundle_has_the_same_bytes_each_time() -> None:
    eval_id = eval_id_for(Scenario.ATTACHMENTS, 1)
    first = bundle_of(eval_id)
    bundle_of.cache_clear()
    assert bundle_of(eval_id) == first != bundle_of(eval_id_for(Scenario.ATTACHMENTS, 2))


def test_the_documented_layout_has_the_names_of_the_riskos_documentation() -> None:
    assert names(Scenario.DOCUMENTED) == [
        "user_uploaded/document_verification/documentfrontDoc_Front_1_blob.jpg",
        "user_uploaded/document_verification/documentbackDoc_Back_1_blob.jpg",
        "user_uploaded/vouched_id_verification/Doc_Selfie_1_blob.jpg",
    ]


def test_names_may_have_no_extension_and_an_apostrophe() -> None:
    assert names(Scenario.EXTENSIONLESS) == [
        "user_uploaded/document_verification/front",
        "user_uploaded/document_verification/back",
        "user_uploaded/vouched_id_verification/driver's_license",
    ]


def test_flat_and_older_bundles_have_no_folders() -> None:
    assert not [name for name in names(Scenario.FLAT) + names(Scenario.OLDER_NAMES) if "/" in name]
    assert "licenseDoc_Front_1_documentFront.jpg" in names(Scenario.OLDER_NAMES)


def test_a_second_submission_is_next_to_the_first() -> None:
    assert len([name for name in names(Scenario.SECOND_SUBMISSION) if "_2_" in name]) == 2
    assert len([name for name in names(Scenario.SECOND_SUBMISSION) if "_1_" in name]) == 3


def test_a_passport_has_no_back() -> None:
    assert [name for name in names(Scenario.PASSPORT) if "Back" in name] == []


def test_attachments_include_a_name_outside_ascii() -> None:
    attached = [member for member in members(Scenario.ATTACHMENTS) if member.filename.startswith("case_")]
    assert len(attached) == 6
    assert any(member.flag_bits & UTF8_NAME for member in attached)


def test_a_streamed_bundle_has_data_descriptors() -> None:
    assert all(member.flag_bits & DATA_DESCRIPTOR for member in members(Scenario.STREAMED))
    assert not any(member.flag_bits & DATA_DESCRIPTOR for member in members(Scenario.DOCUMENTED))


def test_a_stored_bundle_is_not_compressed() -> None:
    assert {member.compress_type for member in members(Scenario.STORED)} == {zipfile.ZIP_STORED}
    assert {member.compress_type for member in members(Scenario.DOCUMENTED)} == {zipfile.ZIP_DEFLATED}


def test_a_bundle_may_have_folder_entries() -> None:
    assert [member.filename for member in members(Scenario.FOLDER_ENTRIES) if member.is_dir()] == [
        "user_uploaded/document_verification/",
        "user_uploaded/vouched_id_verification/",
    ]


def test_two_members_may_have_the_same_content() -> None:
    contents = list(documents_of(eval_id_for(Scenario.SAME_BYTES_TWICE, 1)).values())
    assert len(contents) == len(set(contents)) + 1


def test_a_changed_evaluation_has_one_more_document() -> None:
    eval_id = eval_id_for(Scenario.CHANGING, 1)
    before, after = documents_of(eval_id), documents_of(eval_id, changed=True)
    assert before.items() < after.items()
    assert len(after) == len(before) + 1


def test_a_zip_without_members_is_valid() -> None:
    assert zipfile.ZipFile(io.BytesIO(zip_of({}))).namelist() == []
