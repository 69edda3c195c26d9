"""Seal documents before they are sent to the bucket, so that the bucket's owner cannot read them.

This is envelope encryption with AES-256-GCM. Each object has its own key, which is stored at its beginning, sealed with
one of the keys of the settings. Every seal authenticates the object's key in the archive. An object that was copied to
another key, truncated or reassembled therefore cannot be opened.

    magic            13 bytes  "docv-sealed-1"
    key ID           1 byte of length, then the ID, ASCII
    sealed key       12 bytes nonce, 48 bytes: the object's key, sealed with the key that has that ID
    pieces           at least one; each has 1 MiB and a 16-byte tag, the last one may be shorter
                     nonce: 11 bytes number of the piece, from 0, big-endian; 1 byte: 1 for the last, else 0
                     additional data: the object's key in the archive
"""

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tasks.errors import IntegrityError, SealingKeyMissing
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import chunks

MAGIC = b"docv-sealed-1"
_KEY_BYTES = 32
_PIECE = 1 << 20
_TAG = 16
_NONCE = 12
_SEALED_KEY = _NONCE + _KEY_BYTES + _TAG
BEGINNING = len(MAGIC) + 1 + 255
"""Number of first bytes that always include the ID of the key that an object is sealed with."""
_BROKEN = "a sealed object cannot be opened: it was changed, truncated or copied from another key"


@dataclass(frozen=True)
class Keyring:
    """The sealing keys of the settings.

    Attributes:
        current: ID of the key to seal with.
        keys: the keys to open with, each 32 bytes, by their IDs.
    """

    current: str
    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Keyring | None":
        """Return the keyring of keys written as ``id:base64``, the current one first, or None if there are no keys."""
        keys = {key_id: base64.b64decode(key) for key_id, _, key in (text.partition(":") for text in texts)}
        return cls(next(iter(keys)), keys) if keys else None

    def open(self, key_id: str, nonce: bytes, sealed: bytes, place: bytes) -> bytes:
        """Open and return the key of an object.

        Raises:
            SealingKeyMissing: the settings do not have the key that it is sealed with.
            IntegrityError: the object's key cannot be opened.
        """
        if key_id not in self.keys:
            raise SealingKeyMissing(key_id)
        return _decrypt(AESGCM(self.keys[key_id]), nonce, sealed, _head(key_id) + place)


def sealed_size(size: int, key_id: str) -> int:
    """Return the sealed size of an object with this plain size; both in bytes."""
    return len(_head(key_id)) + _SEALED_KEY + size + _TAG * max(1, -(-size // _PIECE))


def seal(data: Buffer, place: str, keyring: Keyring) -> Iterator[bytes]:
    """Yield the sealed form of some bytes.

    Args:
        data: the plain bytes.
        place: the object's key in the archive.
        keyring: the keyring with the key to seal with.
    """
    where, head, own = place.encode(), _head(keyring.current), os.urandom(_KEY_BYTES)
    nonce = os.urandom(_NONCE)
    yield head + nonce + AESGCM(keyring.keys[keyring.current]).encrypt(nonce, own, head + where)
    cipher, last = AESGCM(own), max(0, -(-len(data) // _PIECE) - 1)
    if not len(data):
        yield cipher.encrypt(_number(0, last=True), b"", where)
    for number, piece in enumerate(chunks(data, 0, len(data), _PIECE)):
        yield cipher.encrypt(_number(number, last=number == last), bytes(piece), where)


def key_id_of(beginning: bytes) -> str | None:
    """Return the ID of the key that an object is sealed with, from its first bytes, or None if it is not sealed."""
    if not beginning.startswith(MAGIC) or len(beginning) <= len(MAGIC):
        return None
    start = len(MAGIC) + 1
    return beginning[start : start + beginning[len(MAGIC)]].decode("ascii", errors="replace")


def is_plain(data: bytes) -> bool:
    """Return whether an object with these first bytes is unsealed; False if there are too few bytes to decide."""
    return len(data) >= len(MAGIC) and not data.startswith(MAGIC)


class StreamOpener:
    """Opens one object chunk by chunk; unsealed objects pass through unchanged.

    Args:
        place: the object's key in the archive.
        keyring: the keys to open with, or None if the settings have no keys.

    Attributes:
        key_id: ID of the key that it is sealed with; None if the object is not sealed, or the ID was not read yet.
    """

    def __init__(self, place: str, keyring: Keyring | None) -> None:
        self._place, self._keyring = place.encode(), keyring
        self._waiting = b""
        self._plain = False
        self.key_id: str | None = None
        self._cipher: AESGCM | None = None
        self._number = 0

    def update(self, chunk: bytes) -> bytes:
        """Add a chunk; return the plain bytes that can be opened so far.

        Raises:
            SealingKeyMissing: the settings do not have the key that the object is sealed with.
            IntegrityError: the object cannot be opened.
        """
        if self._plain:
            return chunk
        self._waiting += chunk
        if self._cipher is None and not self._begin():
            return self._rest() if self._plain else b""
        opened = b""
        # Any further byte shows that a full piece is not the last one.
        while len(self._waiting) > _PIECE + _TAG:
            opened += self._open(self._waiting[: _PIECE + _TAG], last=False)
            self._waiting = self._waiting[_PIECE + _TAG :]
        return opened

    def finish(self) -> bytes:
        """Open the last piece at the end of the object; return its plain bytes.

        Raises:
            IntegrityError: the object cannot be opened, or is incomplete.
        """
        if self._cipher is None:
            if self._waiting.startswith(MAGIC):
                raise IntegrityError(_BROKEN)
            return self._rest()
        return self._open(self._rest(), last=True)

    def _begin(self) -> bool:
        """Read the header if all of it has arrived; return whether it has."""
        if not MAGIC.startswith(self._waiting[: len(MAGIC)]):
            self._plain = True
        known = len(self._waiting) > len(MAGIC)
        length = len(MAGIC) + 1 + (self._waiting[len(MAGIC)] if known else 0)
        if self._plain or not known or len(self._waiting) < length + _SEALED_KEY:
            return False
        key_id = self._waiting[len(MAGIC) + 1 : length].decode("ascii", errors="replace")
        self.key_id = key_id
        if self._keyring is None:
            raise SealingKeyMissing(key_id)
        nonce, sealed = self._waiting[length : length + _NONCE], self._waiting[length + _NONCE : length + _SEALED_KEY]
        self._cipher = AESGCM(self._keyring.open(key_id, nonce, sealed, self._place))
        self._waiting = self._waiting[length + _SEALED_KEY :]
        return True

    def _open(self, piece: bytes, *, last: bool) -> bytes:
        assert self._cipher  # noqa: S101  # set once the header has been read
        opened = _decrypt(self._cipher, _number(self._number, last=last), piece, self._place)
        self._number += 1
        return opened

    def _rest(self) -> bytes:
        rest, self._waiting = self._waiting, b""
        return rest


def _decrypt(cipher: AESGCM, nonce: bytes, sealed: bytes, additional: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, sealed, additional)
    except InvalidTag:
        raise IntegrityError(_BROKEN) from None


def _head(key_id: str) -> bytes:
    return MAGIC + bytes([len(key_id)]) + key_id.encode("ascii")


def _number(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE - 1) + bytes([last])
