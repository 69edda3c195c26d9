"""The floor: blocking keep-alive sockets, isal, one SHA-256 of each document; no signature, no check, no queue."""

import hashlib
import socket
import ssl
import struct
from contextlib import closing
from urllib.parse import urlsplit

from isal import isal_zlib

from tests.bench.peers.place import BUCKET, RISKOS, S3, document_key, eval_ids, manifest, manifest_key

_DIRECTORY, _END = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_LOCAL = 30
_READ = 1 << 20


class Connection:
    """A keep-alive connection for one request at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        plain = socket.create_connection((parts.hostname or "", parts.port or 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = parts.scheme == "https"
        self._socket = (
            ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) if secure else plain
        )
        self._buffer = bytearray(_READ)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> memoryview:
        """Send a request; return the body of its answer, which is valid until the next request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        self._socket.sendall(head)
        if body:
            self._socket.sendall(body)
        return self._answer()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _answer(self) -> memoryview:
        received = 0
        view = memoryview(self._buffer)
        while (end := self._buffer.find(b"\r\n\r\n", 0, received)) < 0:
            received += self._socket.recv_into(view[received:])
        head = bytes(view[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        total = end + 4 + length
        if total > len(view):
            self._buffer, old = bytearray(total), view[:received]
            view = memoryview(self._buffer)
            view[:received] = old
        while received < total:
            received += self._socket.recv_into(view[received:total])
        return view[end + 4 : total]


def unpack(data: memoryview) -> list[tuple[str, bytes]]:
    """Return names and contents of a valid bundle."""
    *_, count, _, at, _ = _END.unpack_from(data, len(data) - _END.size)
    found = []
    for _ in range(count):
        fields = _DIRECTORY.unpack_from(data, at)
        packed, size, name, extra, comment, header = (*fields[8:13], fields[16])
        begin = header + _LOCAL + sum(struct.unpack_from("<2H", data, header + 26))
        content = isal_zlib.decompress(data[begin : begin + packed], wbits=-15, bufsize=size)
        found.append((str(data[at + _DIRECTORY.size :][:name], "utf-8"), content))
        at += _DIRECTORY.size + name + extra + comment
    return found


def archive(eval_id: str, riskos: Connection, s3: Connection) -> None:
    """Archive one evaluation."""
    s3.request("GET", f"/{BUCKET}/{manifest_key(eval_id)}")
    bundle = riskos.request("GET", f"/api/evaluation/{eval_id}/documents")
    documents = []
    for name, content in unpack(bundle):
        sha256 = hashlib.sha256(content).hexdigest()
        s3.request("PUT", f"/{BUCKET}/{document_key(eval_id, sha256)}", content, x_amz_content_sha256=sha256)
        documents.append((name, len(content), sha256))
    s3.request("PUT", f"/{BUCKET}/{manifest_key(eval_id)}", manifest(eval_id, len(bundle), documents))


def main() -> None:
    """Archive evaluations one after the other."""
    with closing(Connection(RISKOS)) as riskos, closing(Connection(S3)) as s3:
        for eval_id in eval_ids():
            archive(eval_id, riskos, s3)


if __name__ == "__main__":
    main()
