"""Serve the scripts and styles of the page under names with their hash, so that browsers cache them forever."""

import functools
import gzip
import hashlib
import importlib.resources
import mimetypes
from dataclasses import dataclass

from aiohttp import web

from scripts.serve.http.responses import HTTPError

_NAMES = ("htmx.min.js", "page.js", "page.css", "icon.svg")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that the page needs; ``packed`` is its data, compressed by gzip."""

    name: str
    media_type: str
    data: bytes
    packed: bytes

    @property
    def path(self) -> str:
        """The path of its URL."""
        return f"/page/assets/{hashlib.sha256(self.data).hexdigest()[:12]}/{self.name}"


class Assets:
    """All files, read once."""

    def __init__(self) -> None:
        self._all = {name: _read(name) for name in _NAMES}

    def path(self, name: str) -> str:
        """Return the path of a file's URL."""
        return self._all[name].path

    async def show(self, request: web.Request) -> web.Response:
        """Answer ``GET /page/assets/{hash}/{name}``."""
        asset = self._all.get(request.match_info["name"])
        if asset is None or asset.path != request.path:
            raise HTTPError(404, "there is no such file; reload the page")
        headers = {
            "Cache-Control": "private, max-age=31536000, immutable",
            "Content-Type": asset.media_type,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=asset.packed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=asset.data, headers=headers)


@functools.cache
def _read(name: str) -> Asset:
    data = importlib.resources.files("scripts.serve.page").joinpath("static", name).read_bytes()
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(name, media_type, data, gzip.compress(data, 9, mtime=0))
