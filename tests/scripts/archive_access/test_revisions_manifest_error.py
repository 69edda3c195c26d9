import pytest

from scripts.archive_access.revisions import manifest_error


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "does not match"),
        (b'{"schema": 1}', "does not match"),
        (b'{"schema": "2"}', "does not match"),
        (b'{"schema": 2}', "newer format (2): use a newer docv-archive"),
    ],
)
def test_the_error_says_why_a_manifest_cannot_be_read(data: bytes, message: str) -> None:
    assert message in manifest_error(data)
