"""The HTTP client of the line to S3: it sends what is signed and little else, and hands out what came as it came.

pyreqwest answers from a thread of its own, and that aborts a process that ends while it does (0.15.1; one in four on
asyncio's loop, none of a thousand on uvloop): `scripts.archive_access.open_bucket` has a command end an instant later,
as obstore needs it.
"""

import urllib.request
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.proxy import ProxyBuilder

from tasks.errors import StorageError

_TOTAL = timedelta(seconds=60)
_CONNECT = timedelta(seconds=5)


def http_client(scheme: str, host: str, at_once: int) -> Client:
    """Return a client for one host; it trusts whom the system trusts, or the file that ``SSL_CERT_FILE`` names.

    Args:
        scheme: of the URLs.
        host: of the URLs, without port.
        at_once: connections at most.

    Raises:
        StorageError: the environment names a proxy that is none.
    """
    # What was put there is to be compared, and not what its Content-Encoding would make of it.
    plain = ClientBuilder().gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False)
    builder = plain.http1_only().user_agent("").follow_redirects(enable=False).no_proxy()
    builder = builder.timeout(_TOTAL).connect_timeout(_CONNECT).max_connections(at_once)
    # boto3 and obstore use the environment's proxy by the same rules.
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    try:
        return (builder.proxy(ProxyBuilder.all(proxy)) if proxy else builder).build()
    except ValueError:
        raise StorageError("read", "what the environment names as a proxy is no URL") from None
