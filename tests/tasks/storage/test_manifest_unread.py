import pytest

from tasks.storage.manifest import manifest_error


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "does not fit"),
        (b'{"schema": 1}', "does not fit"),
        (b'{"schema": "2"}', "does not fit"),
        (b'{"schema": 2}', "newer format (2): use a newer docv-archive"),
    ],
)
def test_it_is_said_why_a_manifest_cannot_be_read(data: bytes, said: str) -> None:
    assert said in manifest_error(data)
