"""Seal documents on our side, so that whoever owns the bucket cannot read them.

Envelope encryption with AES-256-GCM: each object has a key of its own, and that key stands in front of it, sealed with
one of the keys of the settings. The object's place in the archive is a part of every seal, so an object that is put
somewhere else, cut, or put together anew does not open.

    magic            13 bytes  "docv-sealed-1"
    key ID           1 byte of length, then the ID, ASCII
    sealed key       12 bytes nonce, 48 bytes: the object's key, under the key with that ID
    pieces           each 1 MiB and 16 bytes, the last one shorter or as long; at least one
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
_BROKEN = "a sealed object does not open: it was changed, cut, or belongs elsewhere"


@dataclass(frozen=True)
class Keyring:
    """The keys of the settings.

    Attributes:
        current: ID of the one to seal with.
        keys: ID -> 32 bytes; those to open with.
    """

    current: str
    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Keyring | None":
        """Return the keyring of keys written ``id:base64``, the current one first; None where there are none."""
        keys = {key_id: base64.b64decode(key) for key_id, _, key in (text.partition(":") for text in texts)}
        return cls(next(iter(keys)), keys) if keys else None

    def open(self, key_id: str, nonce: bytes, sealed: bytes, place: bytes) -> bytes:
        """Return the key of an object.

        Raises:
            SealingKeyMissing: the settings do not have the key that it is sealed with.
            IntegrityError: it does not open.
        """
        if key_id not in self.keys:
            raise SealingKeyMissing(key_id)
        return _decrypt(AESGCM(self.keys[key_id]), nonce, sealed, _head(key_id) + place)


def sealed_size(size: int, key_id: str) -> int:
    """Return how many bytes so many are when they are sealed."""
    return len(_head(key_id)) + _SEALED_KEY + size + _TAG * max(1, -(-size // _PIECE))


def seal(data: Buffer, place: str, keyring: Keyring) -> Iterator[bytes]:
    """Yield the sealed form of some bytes.

    Args:
        data: the bytes.
        place: the object's key in the archive.
        keyring: with the key to seal with.
    """
    where, head, own = place.encode(), _head(keyring.current), os.urandom(_KEY_BYTES)
    nonce = os.urandom(_NONCE)
    yield head + nonce + AESGCM(keyring.keys[keyring.current]).encrypt(nonce, own, head + where)
    cipher, last = AESGCM(own), max(0, -(-len(data) // _PIECE) - 1)
    if not len(data):
        yield cipher.encrypt(_number(0, last=True), b"", where)
    for number, piece in enumerate(chunks(data, 0, len(data), _PIECE)):
        yield cipher.encrypt(_number(number, last=number == last), bytes(piece), where)


def is_plain(data: bytes) -> bool:
    """Return whether what begins so is not sealed; what is too short to tell may be."""
    return len(data) >= len(MAGIC) and not data.startswith(MAGIC)


class StreamOpener:
    """Opens one object, chunk by chunk as they come; what is not sealed passes as it is.

    Args:
        place: the object's key in the archive.
        keyring: the keys to open with; None where the settings have none.
    """

    def __init__(self, place: str, keyring: Keyring | None) -> None:
        self._place, self._keyring = place.encode(), keyring
        self._waiting = b""
        self._plain = False
        self._cipher: AESGCM | None = None
        self._number = 0

    def update(self, chunk: bytes) -> bytes:
        """Take a chunk; return what can be read so far.

        Raises:
            SealingKeyMissing: the settings do not have its key.
            IntegrityError: it does not open.
        """
        if self._plain:
            return chunk
        self._waiting += chunk
        if self._cipher is None and not self._begin():
            return self._rest() if self._plain else b""
        opened = b""
        # A piece is only known not to be the last when something comes after it.
        while len(self._waiting) > _PIECE + _TAG:
            opened += self._open(self._waiting[: _PIECE + _TAG], last=False)
            self._waiting = self._waiting[_PIECE + _TAG :]
        return opened

    def finish(self) -> bytes:
        """There is no more of it; return the rest.

        Raises:
            IntegrityError: it does not open, or not all of it is there.
        """
        if self._cipher is None:
            if self._waiting.startswith(MAGIC):
                raise IntegrityError(_BROKEN)
            return self._rest()
        return self._open(self._rest(), last=True)

    def _begin(self) -> bool:
        """Read what stands in front; return whether it is known by now."""
        if not MAGIC.startswith(self._waiting[: len(MAGIC)]):
            self._plain = True
        known = len(self._waiting) > len(MAGIC)
        length = len(MAGIC) + 1 + (self._waiting[len(MAGIC)] if known else 0)
        if self._plain or not known or len(self._waiting) < length + _SEALED_KEY:
            return False
        key_id = self._waiting[len(MAGIC) + 1 : length].decode("ascii", errors="replace")
        if self._keyring is None:
            raise SealingKeyMissing(key_id)
        nonce, sealed = self._waiting[length : length + _NONCE], self._waiting[length + _NONCE : length + _SEALED_KEY]
        self._cipher = AESGCM(self._keyring.open(key_id, nonce, sealed, self._place))
        self._waiting = self._waiting[length + _SEALED_KEY :]
        return True

    def _open(self, piece: bytes, *, last: bool) -> bytes:
        assert self._cipher  # noqa: S101  # it has begun
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
