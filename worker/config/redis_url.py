"""Check and parse the URL of Redis, which names a server or the Sentinels that monitor it.

``redis+sentinel://user:password@host:26379,host:26379/service/0`` names the Sentinels, the service that they monitor,
and the database. User and password are those of Redis; ``?sentinel_username=…&sentinel_password=…`` are those of the
Sentinels. ``rediss+sentinel://`` uses TLS for both, and takes ``ssl_ca_certs``, ``ssl_certfile`` and ``ssl_keyfile``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

_DIRECT = frozenset({"redis", "rediss", "unix"})
_SENTINEL_SCHEME = "redis+sentinel"
_SENTINEL_TLS_SCHEME = "rediss+sentinel"
_LOGIN = frozenset({"sentinel_username", "sentinel_password"})
_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_TLS_VALUES = {"ssl_cert_reqs": ("required", "optional", "none"), "ssl_check_hostname": ("true", "false")}
_DATABASE = re.compile(r"/?|/[0-9]{1,4}", re.ASCII)
_OPTION = re.compile(r"[a-z_]{1,40}", re.ASCII)
_ENCODE = "encode @ / # % in the password, as %40 %2F %23 %25"
_PORT = 26379
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
# `urlsplit` does not support several hosts, and what it accepts as a host depends on the version of Python.
_SENTINEL_URL = re.compile(
    rf"(?P<scheme>{re.escape(_SENTINEL_SCHEME)}|{re.escape(_SENTINEL_TLS_SCHEME)})://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/]+)"
    r"/(?P<service>[A-Za-z0-9._-]{1,100})(?:/(?P<database>[0-9]{1,3}))?(?:\?(?P<query>[!-~]+))?",
    re.ASCII,
)
_LAST_PORT = 65_535
# A second @ before the database, an @ after a / or ? of the password, a #, or a % that encodes nothing.
_UNENCODED_PASSWORD = re.compile(
    r"^rediss?(\+sentinel)?://([^/?]*@[^/?]*@|[^@?]*/[^?]*@|[^/?]*\?[^?]*@|[^?]*#|[^?]*%(?![0-9A-Fa-f]{2}))"
)


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The parts of the URL of a Redis behind Sentinel.

    Attributes:
        sentinels: host and port of each Sentinel.
        service: name of the service.
        database: number of the database.
        username: user of Redis.
        password: password of Redis.
        sentinel_username: user of the Sentinels.
        sentinel_password: password of the Sentinels.
        tls: redis-py's TLS options for the Sentinels and for Redis; None without TLS.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] | None = None


def check_redis_url(url: str) -> str:
    """Return the URL of a Redis, with its options in a form that redis-py and kombu both accept.

    Raises:
        ValueError: it is not valid; the message does not repeat it, because it may contain a password.
    """
    if _UNENCODED_PASSWORD.search(url):
        raise ValueError(_ENCODE)
    if is_sentinel_url(url):
        parse_sentinel_url(url)
        return url
    parts = split_url(url)
    if parts.scheme not in _DIRECT or not (len(parts.path) > 1 if parts.scheme == "unix" else parts.hostname):
        raise ValueError("expected redis://host:6379/0, rediss://…, redis+sentinel://… or unix:///path")
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        raise ValueError("its path must be the number of a database, such as /0")
    options = [_check_option(name, text, parts.scheme) for name, text in parse_qsl(parts.query, keep_blank_values=True)]
    query = "&".join(f"{name}={quote(text, safe='/:')}" for name, text in options)
    return url.partition("?")[0] + (f"?{query}" if query else "")


def _check_option(name: str, text: str, scheme: str) -> tuple[str, str]:
    """Return an option of a URL. redis-py and kombu agree on these options only; each refuses some of the others."""
    if name == "db" and text.isdecimal():
        return name, text
    if scheme == "rediss" and name in _FILES and text:
        return name, text
    if scheme == "rediss" and (value := text.lower().removeprefix("cert_")) in _TLS_VALUES.get(name, ()):
        return name, value
    shown = name if _OPTION.fullmatch(name) else "this option"
    takes = f"db, {', '.join(sorted(_FILES | _TLS_VALUES.keys()))}" if scheme == "rediss" else "db"
    raise ValueError(f"{shown} cannot be used: only {takes} may follow the ?; timeouts are set already")


def split_url(url: str) -> SplitResult:
    """Split a URL.

    Raises:
        ValueError: it is not valid; the message does not repeat it, because it may contain a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"it is not a valid URL: check host and port, and {_ENCODE}") from None
    return parts


def is_sentinel_url(url: str) -> bool:
    """Return whether a URL names a Redis by its Sentinels."""
    return url.startswith((f"{_SENTINEL_SCHEME}:", f"{_SENTINEL_TLS_SCHEME}:"))


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Return the parts of a URL with Sentinels.

    Raises:
        ValueError: it is not such a URL.
    """
    parts = _SENTINEL_URL.fullmatch(url)
    found = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")] if parts else []
    sentinels = [(host["name"].strip("[]"), int(host["port"] or _PORT)) for host in found if host]
    options = dict(parse_qsl((parts and parts["query"]) or "", keep_blank_values=True))
    has_tls = parts is not None and parts["scheme"] == _SENTINEL_TLS_SCHEME
    is_known = options.keys() <= (_LOGIN | _FILES if has_tls else _LOGIN)
    if not parts or not is_known or not all(found) or not all(0 < port <= _LAST_PORT for _, port in sentinels):
        raise ValueError(f"expected {_SENTINEL_SCHEME}://host:26379,host:26379/service/0")
    name, _, password = (parts["user"] or "").partition(":")
    return SentinelUrl(
        sentinels=tuple(sentinels),
        service=parts["service"],
        database=int(parts["database"] or 0),
        username=unquote(name) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=options.get("sentinel_password") or None,
        tls={name: path for name, path in options.items() if name in _FILES} if has_tls else None,
    )
