"""How the settings name a Redis: by itself, or by the Sentinels that watch it.

``redis+sentinel://user:password@host:26379,host:26379/service/0`` names the Sentinels, the service that they watch, and
the database. User and password are those of Redis; Sentinels are asked without.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

_DIRECT = frozenset({"redis", "rediss", "unix"})
_WATCHED = "redis+sentinel"
_PORT = 26379
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
# Not for `urlsplit`: what it takes for a host depends on the version of Python, and several are none for any.
_WHOLE = re.compile(
    rf"{re.escape(_WATCHED)}://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/]+)"
    r"/(?P<service>[A-Za-z0-9._-]{1,100})(?:/(?P<database>[0-9]{1,3}))?",
    re.ASCII,
)
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A Redis that Sentinel watches.

    Attributes:
        sentinels: host and port of each.
        service: what they call it.
        database: its number.
        username: of Redis.
        password: of Redis.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def check_redis_url(url: str) -> None:
    """See that a URL names a Redis.

    Raises:
        ValueError: it does not; it is not repeated, for it may hold a password.
    """
    if is_sentinel_url(url):
        parse_sentinel_url(url)
    elif split_url(url).scheme not in _DIRECT:
        raise ValueError("expected is redis://host:6379/0, rediss://…, redis+sentinel://… or unix:///path")


def split_url(url: str) -> SplitResult:
    """Split a URL; what is wrong with it is told without repeating it, for it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("it is no URL: look at host and port") from None
    return parts


def is_sentinel_url(url: str) -> bool:
    """Return whether a URL names a Redis by its Sentinels."""
    return url.startswith(f"{_WATCHED}:")


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Return what such a URL names.

    Raises:
        ValueError: it is none.
    """
    parts = _WHOLE.fullmatch(url)
    found = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")] if parts else []
    sentinels = [(host["name"].strip("[]"), int(host["port"] or _PORT)) for host in found if host]
    if not parts or not all(found) or not all(0 < port <= _LAST_PORT for _, port in sentinels):
        raise ValueError(f"expected is {_WATCHED}://host:26379,host:26379/service/0")
    name, _, password = (parts["user"] or "").partition(":")
    return SentinelUrl(
        sentinels=tuple(sentinels),
        service=parts["service"],
        database=int(parts["database"] or 0),
        username=unquote(name) or None,
        password=unquote(password) or None,
    )
