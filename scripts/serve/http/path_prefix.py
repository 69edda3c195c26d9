"""Serve below a path prefix, for a proxy that passes the prefix on."""

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage

RequestFactory = Callable[..., web.BaseRequest]


def without_prefix(prefix: str, make_request: RequestFactory) -> RequestFactory:
    """Return a factory of requests that removes a prefix from their paths; other paths stay as they are.

    Routes, logs and metrics then know one form of each path, and a proxy may also remove the prefix itself.
    """

    def make(message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        path = message.url.raw_path
        if path == prefix or path.startswith(f"{prefix}/"):
            url = message.url.with_path(path.removeprefix(prefix) or "/", encoded=True, keep_query=True)
            message = message._replace(url=url)
        return make_request(message, *others)

    return make
