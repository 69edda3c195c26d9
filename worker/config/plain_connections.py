"""Find connections in the settings that are not encrypted, or that trust any server."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qs

from worker.config.redis_url import is_sentinel_url, parse_sentinel_url, split_url

_UNCHECKED = {("ssl_cert_reqs", "none"), ("ssl_cert_reqs", "optional"), ("ssl_check_hostname", "false")}


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine, as it is for a URL without a host."""
    if not host or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_plain_connections(s3_endpoint: str | None, redis_url: str | None, broker_url: str | None) -> Iterator[str]:
    """Yield a sentence for each connection to another machine without TLS, or without a check of its certificate."""
    if s3_endpoint and split_url(s3_endpoint).scheme == "http" and not is_loopback(split_url(s3_endpoint).hostname):
        yield "DOCV_S3_ENDPOINT: plain http exposes documents to the network; use https"
    if redis_url:
        yield from _find_plain_redis(redis_url)
    brokers = [split_url(url) for url in (broker_url or "").split(";") if url]
    if any(each.scheme == "amqp" and not is_loopback(each.hostname) for each in brokers):
        yield "DOCV_BROKER_URL: amqp:// exposes its password to the network; use amqps://"


def _find_plain_redis(url: str) -> Iterator[str]:
    if is_sentinel_url(url):
        watched = parse_sentinel_url(url)
        is_plain = watched.tls is None and not all(is_loopback(host) for host, _ in watched.sentinels)
    else:
        parts = split_url(url)
        is_plain = parts.scheme == "redis" and not is_loopback(parts.hostname)
        if parts.scheme == "rediss" and _is_unchecked(parts):
            yield "DOCV_REDIS_URL: the certificate is not checked; leave ssl_cert_reqs and ssl_check_hostname out"
    if is_plain:
        yield "DOCV_REDIS_URL: redis:// exposes its password and evaluation IDs to the network; use rediss://"


def _is_unchecked(parts: SplitResult) -> bool:
    options = parse_qs(parts.query)
    given = {(name, value) for name, values in options.items() for value in values}
    return not is_loopback(parts.hostname) and bool(given & _UNCHECKED)
