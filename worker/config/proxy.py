"""Find the proxy for requests to RiskOS: ``DOCV_PROXY``, or the one in the environment.

aiohttp's ``trust_env`` is not used, because it also reads ``~/.netrc`` and then refuses requests with an Authorization
header.
"""

from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr

from worker.config.plain_connections import is_loopback
from worker.config.redis_url import split_url


def find_proxy(url: str, own: SecretStr | None) -> SecretStr | None:
    """Return the URL of the proxy for a server; None if requests go there directly.

    Args:
        url: URL of the server.
        own: the proxy in the settings.

    Raises:
        ValueError: the environment names something other than an HTTP proxy.
    """
    if own is not None:
        return own
    server = split_url(url)
    proxies = getproxies()
    named = proxies.get(server.scheme) or proxies.get("all")
    if not named or proxy_bypass(server.netloc.rpartition("@")[2]):
        return None
    proxy = check_proxy(named)
    # A proxy on another machine cannot reach the loopback address of this one.
    if is_loopback(server.hostname) and not is_loopback(split_url(proxy).hostname):
        return None
    return SecretStr(proxy)


def check_proxy(url: str) -> str:
    """Return the URL of a proxy, with ``http://`` if it has no scheme.

    Raises:
        ValueError: it is not valid; the message does not repeat it, because it may contain a password.
    """
    parts = split_url(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected a proxy such as http://proxy.example.com:3128; SOCKS is not supported")
    return parts.geturl()


def proxy_address(proxy: SecretStr) -> tuple[str, int]:
    """Return host and port of a proxy."""
    parts = split_url(proxy.get_secret_value())
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
