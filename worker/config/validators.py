"""What the value of a setting may be: each check returns it, or says in a ``ValueError`` what is expected."""

import base64
import re
from collections.abc import Iterator

from pydantic import SecretStr

from worker.config.redis_url import check_redis_url, split_url

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# What S3 takes in a tag (Amazon S3 User Guide, "Categorizing your storage using tags").
_TAG = re.compile(r"[\w .:/=+\-@]{1,128}", re.ASCII)
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_KEY_BYTES = 32
KINDS = ("document_front", "document_back", "selfie", "secondary_document", "attachment", "other")
"""Kinds of documents (``tasks.bundle.documents.Kind``)."""
_MAX_PATTERNS, _LONGEST_GLOB = 100, 200


def riskos_url(url: str | None) -> str | None:
    """Check the base URL of RiskOS."""
    if url is None:
        return None
    parts = split_url(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("expected is a base URL such as https://riskos.socure.com")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("plain http would show the API key to the network; use https (http only to loopback)")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("expected is a base URL without user, query and fragment")
    return url.rstrip("/")


def s3_endpoint(url: str | None) -> str | None:
    """Check the URL of an S3."""
    if url is not None and (split_url(url).scheme not in {"https", "http"} or not split_url(url).hostname):
        raise ValueError("expected is a URL such as https://s3.example.com")
    return url


def archive_url(url: str) -> str:
    """Check where the archive is."""
    parts = split_url(url)
    if parts.scheme == "s3" and parts.netloc:
        return url.rstrip("/")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return url
    raise ValueError("expected is s3://bucket/prefix or file:///path")


def redis_url(url: SecretStr | None) -> SecretStr | None:
    """Check the URL of a Redis."""
    if url is not None:
        check_redis_url(url.get_secret_value())
    return url


def broker_url(url: SecretStr | None) -> SecretStr | None:
    """Check the URL of a RabbitMQ."""
    if url is not None and (parts := split_url(url.get_secret_value())).scheme not in {"amqp", "amqps"}:
        raise ValueError(f"expected is amqp://user:password@host:5672/vhost or amqps://…, not {parts.scheme or 'that'}")
    return url


def credentials(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check Bearer tokens and pairs of user and password."""
    for secret in secrets:
        # The name of a pair is no secret: its password has to be one by itself.
        name, colon, password = secret.get_secret_value().partition(":")
        _check_token(password if colon else name)
    return secrets


def intake_tokens(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check Bearer tokens of producers."""
    for token in tokens:
        if ":" in token.get_secret_value():
            raise ValueError(
                "expected are Bearer tokens, separated by commas; user:password is for webhooks and persons"
            )
        _check_token(token.get_secret_value())
    return tokens


def encryption_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check keys to seal with."""
    names = [key.get_secret_value().partition(":")[0] for key in keys]
    if not all(map(_is_encryption_key, keys)):
        raise ValueError("expected is id:key, the key 32 bytes in base64; `openssl rand -base64 32` makes a good one")
    if len(set(names)) != len(names):
        raise ValueError("two keys have the same ID")
    return keys


def _is_encryption_key(key: SecretStr) -> bool:
    name, _, text = key.get_secret_value().partition(":")
    try:
        return bool(_KEY_ID.fullmatch(name)) and len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def is_token(text: str) -> bool:
    """Return whether a text is one word of visible ASCII characters, as a header can carry it."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def _check_token(secret: str) -> None:
    if not is_token(secret):
        raise ValueError("each must be one word of visible ASCII characters; `openssl rand -hex 32` makes a good one")


def tags(text: str) -> Iterator[tuple[str, str]]:
    """Yield the tags that a text names."""
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not _TAG.fullmatch(name) or (value and not _TAG.fullmatch(value)):
            raise ValueError(f"{part!r} is no tag; expected is name=value of letters, digits, space and _.:/=+-@")
        yield name, value


def kind_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Check patterns of names that tell the kind of a document."""
    if len(patterns) > _MAX_PATTERNS:
        raise ValueError(f"expected at most {_MAX_PATTERNS} patterns")
    for pattern in patterns:
        kind, colon, glob = (part.strip() for part in pattern.partition(":"))
        if not colon or kind not in KINDS:
            raise ValueError(
                f"{printable(pattern)} does not begin with a kind and a colon: expected one of {', '.join(KINDS)}"
            )
        if not glob.isprintable() or len(glob) > _LONGEST_GLOB or not re.search(r"[^*?\s/]", glob):
            raise ValueError(f"{printable(pattern)} has no usable glob: expected some letters of the name, * and ?")
        if re.search(r"\[", re.sub(r"\[!?\]?[^\]]*\]", "", glob)):
            raise ValueError(f"{printable(pattern)} has a [ without its ]")
    return patterns


def printable(text: str) -> str:
    """Return a text that is wrong, short and on one line, in quotes."""
    return repr(text[:80])
