"""Sealed bytes open only with their key and under their object key."""

import base64
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import IntegrityError, SealingKeyMissing
from tasks.storage import encryption as module
from tasks.storage.encryption import MAGIC, Keyring, StreamOpener, is_plain, seal, sealed_size

PLACE = "sandbox/an ID/selfie/hash.jpg"
OLD = Keyring("2025", {"2025": b"o" * 32})
NEW = Keyring("2026", {"2026": b"n" * 32, "2025": b"o" * 32})


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 100)


def sealed(data: bytes, place: str = PLACE, keyring: Keyring = NEW) -> bytes:
    return b"".join(seal(data, place, keyring))


def opened(data: bytes, place: str = PLACE, keyring: Keyring | None = NEW, chunk: int = 37) -> bytes:
    opening = StreamOpener(place, keyring)
    parts = [opening.update(data[at : at + chunk]) for at in range(0, len(data), chunk)]
    return b"".join([*parts, opening.finish()])


@given(st.binary(max_size=450), st.integers(1, 600))
def test_sealed_bytes_open_in_chunks_of_any_size(data: bytes, chunk: int) -> None:
    module._PIECE = 100
    assert opened(sealed(data), chunk=chunk) == data


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 1_000])
def test_the_sealed_size_is_known_before_sealing(size: int) -> None:
    assert len(sealed(b"x" * size)) == sealed_size(size, "2026")


def test_sealing_the_same_bytes_twice_gives_different_results() -> None:
    assert sealed(b"a picture") != sealed(b"a picture")
    assert b"a picture" not in sealed(b"a picture")


def test_a_former_key_opens_bytes_that_it_sealed() -> None:
    assert opened(sealed(b"a picture", keyring=OLD), keyring=NEW) == b"a picture"


@pytest.mark.parametrize("keyring", [OLD, None])
def test_opening_raises_with_the_id_of_a_missing_key(keyring: Keyring | None) -> None:
    with pytest.raises(SealingKeyMissing, match=r"'2026'.*DOCV_ENCRYPTION_KEYS"):
        opened(sealed(b"a picture"), keyring=keyring)


def test_opening_raises_with_another_key_of_the_same_id() -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"a picture"), keyring=Keyring("2026", {"2026": b"z" * 32}))


def test_opening_raises_under_another_object_key() -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"a picture"), place=PLACE + "x")


def test_opening_raises_when_any_byte_was_changed() -> None:
    whole = sealed(b"x" * 250)
    for at in range(len(MAGIC), len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises((IntegrityError, SealingKeyMissing)):
            opened(changed)


@pytest.mark.parametrize("cut", [1, 16, 17, 116, 117, 200, 300, 340])
def test_opening_raises_when_the_end_was_cut_off(cut: int) -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"x" * 250)[:-cut])


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the header and the chunks."""
    front = sealed_size(0, "2026") - 16
    return data[:front], [data[at : at + 116] for at in range(front, len(data), 116)]


def recombined() -> Iterator[tuple[int, ...]]:
    for count in range(1, 5):
        yield from (order for order in itertools.product(range(3), repeat=count) if order != (0, 1, 2))


def test_opening_raises_when_chunks_were_rearranged() -> None:
    front, three = parts(sealed(b"x" * 300))
    assert len(three) == 3
    for order in recombined():
        with pytest.raises(IntegrityError):
            opened(front + b"".join(three[number] for number in order))


@pytest.mark.parametrize("data", [b"", b"d", MAGIC[:5], b"docv-", b"\xff\xd8\xff a picture" * 50])
@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_plain_bytes_pass_unchanged(data: bytes, chunk: int) -> None:
    assert opened(data, chunk=chunk) == data
    assert opened(data, keyring=None, chunk=chunk) == data


def test_a_keyring_does_not_show_its_keys() -> None:
    assert "nnnn" not in repr(NEW)


def test_the_first_key_of_the_settings_seals_and_all_open() -> None:
    written = [f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in NEW.keys.items()]
    assert Keyring.of(written) == NEW
    assert Keyring.of([]) is None


def test_plain_bytes_are_recognised_by_their_beginning_unless_they_are_too_short() -> None:
    assert is_plain(b"\xff\xd8\xff\xe0 a photograph")
    assert not is_plain(sealed(b"x"))
    assert not is_plain(b"")
    assert not is_plain(b"\xff\xd8")
