"""The extension of a copy follows from its media type, whatever the key contains."""

import pytest

from scripts.archive_access.extensions import extension_of, may_keep
from tasks.storage.manifest_records import DocumentRecord


@pytest.mark.parametrize(
    ("media_type", "in_key", "extension"),
    [
        ("image/jpeg", "jpg", "jpg"),
        ("image/jp2", "bin", "jp2"),
        ("image/jpeg", "exe", "jpg"),
        ("application/octet-stream", "exe", "bin"),
        ("application/x-ole-storage", "msi", "bin"),
        ("application/x-msi", "msi", "bin"),
        ("image/later", "jxl", "jxl"),
        ("image/later", "JXL", "jxl"),
        ("image/later", "exe", "bin"),
        ("image/later", "later", "bin"),
    ],
)
def test_a_copy_has_a_harmless_extension(media_type: str, in_key: str, extension: str) -> None:
    facts = {"name": "a", "kind": "selfie", "size": 1, "sha256": "a" * 64, "modified": None}
    key = f"sandbox/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10/selfie/{'a' * 64}.{in_key}"
    record = DocumentRecord.model_validate(facts | {"media_type": media_type, "key": key})

    assert extension_of(record) == extension


@pytest.mark.parametrize(
    ("extension", "media_type", "is_kept"),
    [
        ("jpg", "image/jpeg", True),
        ("JPG", "image/jpeg", True),
        ("jpg", "application/pdf", False),
        ("dat", "application/octet-stream", True),
        ("dat", "image/jpeg", False),
        ("exe", "application/octet-stream", False),
        ("jp\u00e9", "image/jpeg", False),
    ],
)
def test_a_copy_keeps_an_extension_that_fits_its_content(extension: str, media_type: str, *, is_kept: bool) -> None:
    assert may_keep(extension, media_type) is is_kept
