"""What is sealed opens to the same bytes, at its own place and with its own key, and nowhere else."""

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
def test_what_is_sealed_opens_to_the_same_bytes_however_it_arrives(data: bytes, chunk: int) -> None:
    module._PIECE = 100
    assert opened(sealed(data), chunk=chunk) == data


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 1_000])
def test_its_size_is_known_before(size: int) -> None:
    assert len(sealed(b"x" * size)) == sealed_size(size, "2026")


def test_the_same_bytes_never_look_the_same() -> None:
    assert sealed(b"a picture") != sealed(b"a picture")
    assert b"a picture" not in sealed(b"a picture")


def test_a_former_key_opens_what_it_sealed() -> None:
    assert opened(sealed(b"a picture", keyring=OLD), keyring=NEW) == b"a picture"


@pytest.mark.parametrize("keyring", [OLD, None])
def test_without_its_key_it_does_not_open_and_the_key_is_named(keyring: Keyring | None) -> None:
    with pytest.raises(SealingKeyMissing, match=r"'2026'.*DOCV_ENCRYPTION_KEYS"):
        opened(sealed(b"a picture"), keyring=keyring)


def test_another_key_of_the_same_name_does_not_open_it() -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"a picture"), keyring=Keyring("2026", {"2026": b"z" * 32}))


def test_at_another_place_it_does_not_open() -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"a picture"), place=PLACE + "x")


def test_a_change_of_any_byte_is_found() -> None:
    whole = sealed(b"x" * 250)
    for at in range(len(MAGIC), len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises((IntegrityError, SealingKeyMissing)):
            opened(changed)


@pytest.mark.parametrize("cut", [1, 16, 17, 116, 117, 200, 300, 340])
def test_what_was_cut_is_found(cut: int) -> None:
    with pytest.raises(IntegrityError):
        opened(sealed(b"x" * 250)[:-cut])


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return what stands in front, and the pieces."""
    front = sealed_size(0, "2026") - 16
    return data[:front], [data[at : at + 116] for at in range(front, len(data), 116)]


def recombined() -> Iterator[tuple[int, ...]]:
    for count in range(1, 5):
        yield from (order for order in itertools.product(range(3), repeat=count) if order != (0, 1, 2))


def test_pieces_put_together_anew_are_found() -> None:
    front, three = parts(sealed(b"x" * 300))
    assert len(three) == 3
    for order in recombined():
        with pytest.raises(IntegrityError):
            opened(front + b"".join(three[number] for number in order))


@pytest.mark.parametrize("data", [b"", b"d", MAGIC[:5], b"docv-", b"\xff\xd8\xff a picture" * 50])
@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_what_is_not_sealed_passes_as_it_is(data: bytes, chunk: int) -> None:
    assert opened(data, chunk=chunk) == data
    assert opened(data, keyring=None, chunk=chunk) == data


def test_a_keyring_does_not_show_its_keys() -> None:
    assert "nnnn" not in repr(NEW)


def test_the_first_key_of_the_settings_seals_and_all_open() -> None:
    written = [f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in NEW.keys.items()]
    assert Keyring.of(written) == NEW
    assert Keyring.of([]) is None


def test_what_is_plain_is_known_by_its_beginning_and_what_is_short_may_be_sealed() -> None:
    assert is_plain(b"\xff\xd8\xff\xe0 a photograph")
    assert not is_plain(sealed(b"x"))
    assert not is_plain(b"")
    assert not is_plain(b"\xff\xd8")
