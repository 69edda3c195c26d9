"""The HTTP client for S3: it sends the signed headers and little else, and returns bodies unchanged.

pyreqwest's thread aborts a process that ends while it answers (0.15.1; one in four processes on asyncio's loop, none of
a thousand on uvloop). `scripts.archive_access.open_bucket` ends a command a moment later, which obstore needs as well.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.proxy import ProxyBuilder

_TOTAL = timedelta(seconds=60)
_CONNECT = timedelta(seconds=5)
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def http_client(at_once: int, proxy: str | None, ca_bundle: str | None) -> Client:
    """Return a client.

    Args:
        at_once: maximum number of connections.
        proxy: URL of the proxy; None if requests go to their server directly.
        ca_bundle: file with the authorities to trust; None for those of the system.
    """
    # The stored bytes are compared, so they are not decoded by Content-Encoding.
    plain = ClientBuilder().gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False)
    builder = plain.http1_only().user_agent("").follow_redirects(enable=False).no_proxy()
    builder = builder.timeout(_TOTAL).connect_timeout(_CONNECT).max_connections(at_once)
    with _trusting(ca_bundle):
        return (builder.proxy(ProxyBuilder.all(proxy)) if proxy else builder).build()


@contextlib.contextmanager
def _trusting(ca_bundle: str | None) -> Iterator[None]:
    """Let clients built in the block trust only this file: pyreqwest can add authorities, but not remove any."""
    if ca_bundle is None:
        yield
        return
    before = {name: os.environ.pop(name) for name in _TRUSTED if name in os.environ}
    os.environ["SSL_CERT_FILE"] = str(Path(ca_bundle).absolute())
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        os.environ.update(before)
