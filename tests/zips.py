"""ZIPs for tests: valid ones from dicts, and ones in which every field can be forged."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

MOMENT = (2026, 1, 31, 12, 0, 0)
FAT, UNIX = 0x001E, 0x031E
"""The field "version made by" of an entry: a system, and the version of the specification."""
_DATE, _TIME = (2026 - 1980) << 9 | 1 << 5 | 31, 12 << 11


def zip_of(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED, *, comment: bytes = b"") -> bytes:
    """Return a ZIP of these files, with the same bytes each time; a name that ends in ``/`` is a folder."""
    return _written(io.BytesIO(), files, compression, comment)


def streamed_zip_of(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP as a server streams it: sizes and CRC follow each member in a data descriptor."""
    return _written(_Stream(), files, compression, b"")


def wide_zip_of(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP with local headers in Zip64 form, as from a writer that did not know the sizes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            with archive.open(_info(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as member:
                member.write(content)
    return file.getvalue()


class _Stream(io.BytesIO):
    """A stream such as a socket, in which a writer cannot seek."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


def _info(name: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, MOMENT)
    info.compress_type = compression
    return info


def _written(file: io.BytesIO, files: Mapping[str, bytes], compression: int, comment: bytes) -> bytes:
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(_info(name, compression), content)
    return file.getvalue()


def deflated(content: bytes) -> bytes:
    """Return the content as raw deflate data."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()


def descriptor(content: bytes, packed: bytes, *, wide: bool = False, mark: bool = True) -> bytes:
    """Return the data descriptor of a member, in one of its four forms."""
    fields = struct.pack("<L2Q" if wide else "<3L", zlib.crc32(content), len(packed), len(content))
    return (b"PK\7\x08" if mark else b"") + fields


def zip64_extra(*numbers: int) -> bytes:
    """Return the extra field with the numbers that are saturated in the header."""
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


@dataclass(kw_only=True)
class Raw:
    """One member, written by hand; ``local`` and ``central`` forge fields of that header."""

    name: bytes = b"a.txt"
    content: bytes = b"some content"
    packed: bytes | None = None
    method: int = 0
    flags: int = 0
    attributes: int = 0
    descriptor: bytes = b""
    gap: bytes = b""
    local: dict[str, int | bytes] = field(default_factory=dict)
    central: dict[str, int | bytes] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflated(self.content) if self.method == zipfile.ZIP_DEFLATED else self.content

    def fields(self, forged: Mapping[str, int | bytes]) -> dict[str, object]:
        true = {
            "mark": b"", "flags": self.flags, "method": self.method, "time": _TIME, "date": _DATE,
            "crc": zlib.crc32(self.content), "packed": len(self.data), "size": len(self.content),
            "name": self.name, "extra": b"", "comment": b"", "disk": 0, "attributes": self.attributes,
        }  # fmt: skip
        return {**true, **forged}

    def local_header(self) -> bytes:
        f = self.fields({"mark": b"PK\3\4", **self.local})
        return struct.pack(
            "<4s5H3L2H", f["mark"], 20, f["flags"], f["method"], f["time"], f["date"], f["crc"], f["packed"],
            f["size"], len(bytes(f["name"])), len(bytes(f["extra"])),
        ) + bytes(f["name"]) + bytes(f["extra"])  # fmt: skip

    def central_header(self, offset: int) -> bytes:
        f = self.fields({"mark": b"PK\1\2", "made_by": UNIX, "needed": 20, "offset": offset, **self.central})
        return struct.pack(
            "<4s6H3L5H2L", f["mark"], f["made_by"], f["needed"], f["flags"], f["method"], f["time"], f["date"],
            f["crc"], f["packed"], f["size"], len(bytes(f["name"])), len(bytes(f["extra"])), len(bytes(f["comment"])),
            f["disk"], 0, f["attributes"], f["offset"],
        ) + bytes(f["name"]) + bytes(f["extra"]) + bytes(f["comment"])  # fmt: skip


@dataclass(kw_only=True)
class Forgery:
    """A whole ZIP written by hand, valid except for the given fields."""

    members: list[Raw] = field(default_factory=lambda: [Raw()])
    before: bytes = b""
    before_directory: bytes = b""
    after_directory: bytes = b""
    comment: bytes = b""
    after: bytes = b""
    end: dict[str, int] = field(default_factory=dict)
    end64: dict[str, int] | None = None
    locator: dict[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        body, directory = self.before, b""
        for member in self.members:
            body += member.gap
            directory += member.central_header(len(body))
            body += member.local_header() + member.data + member.descriptor
        body += self.before_directory
        return body + directory + self.after_directory + self._ends(len(body), len(directory))

    def _ends(self, offset: int, size: int) -> bytes:
        count = len(self.members)
        true = {"disk": 0, "first": 0, "here": count, "count": count, "size": size, "offset": offset}
        wide = b""
        if self.end64 is not None:
            at = offset + size + len(self.after_directory)
            record = struct.pack("<2H2L4Q", 45, 45, *{**true, **self.end64}.values())
            locator = {"disk": 0, "at": at, "disks": 1, **self.locator}
            wide = b"PK\6\6" + struct.pack("<Q", len(record)) + record
            wide += b"PK\6\7" + struct.pack("<LQL", *locator.values())
        narrow = struct.pack("<4H2LH", *{**true, **self.end}.values(), len(self.comment))
        return wide + b"PK\5\6" + narrow + self.comment + self.after


def forged(*members: Raw, **fields: object) -> bytes:
    """Return a ZIP written by hand; by default with one valid member."""
    if members:
        fields["members"] = list(members)
    return Forgery(**fields).to_bytes()  # type: ignore[arg-type]
