"""Validate the values of settings. Each function returns the value, or raises a ``ValueError`` for the operator."""

import base64
import os.path
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pydantic import SecretStr

from worker.config.plain_connections import is_loopback
from worker.config.proxy import check_proxy
from worker.config.redis_url import check_redis_url, split_url

# The characters that S3 allows in a tag (Amazon S3 User Guide, "Categorizing your storage using tags").
_TAG = re.compile(r"[\w .:/=+\-@]{1,128}", re.ASCII)
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_KEY_BYTES = 32
_ARCHIVE = "expected s3://bucket/prefix or file:///path"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}", re.ASCII)
# Includes old buckets (us-east-1, before 2018) and those of other S3 servers, which have fewer rules.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}", re.ASCII)
_PREFIX = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){1,8}/?", re.ASCII)
_PATHS_OF_SERVE = {"evaluations", "livez", "metrics", "openapi.json", "page", "readyz", "webhooks"}
_KEYS_OF_S3 = "put the keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_ARN = "an ARN cannot be used; name the bucket, or an access point by its alias: s3://bucket/prefix"
SHORTEST_SECRET = 16
"""Minimum length of a token or password for `serve`; shorter ones can be guessed."""
KINDS = ("document_front", "document_back", "selfie", "secondary_document", "attachment", "other")
"""Kinds of documents (``tasks.bundle.documents.Kind``)."""
_MAX_PATTERNS, _LONGEST_GLOB, _LONGEST_URL = 100, 200, 2_000


def riskos_url(url: str | None) -> str | None:
    """Check the base URL of RiskOS."""
    if url is None:
        return None
    parts = split_url(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("expected a base URL such as https://riskos.socure.com")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain http would expose the API key to the network; use https (http only to loopback)")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("expected a base URL without user, query and fragment")
    return url.rstrip("/")


def path_prefix(path: str | None) -> str | None:
    """Check the path below which the operations page is served."""
    if path is None or path == "/":
        return None
    if not _PREFIX.fullmatch(path):
        raise ValueError("expected a path such as /docv: letters, digits, '.', '_' and '-' between slashes")
    path = path.rstrip("/")
    if path.partition("/")[2].partition("/")[0] in _PATHS_OF_SERVE:
        raise ValueError("serve has paths of its own that begin like this; choose another one, such as /docv")
    return path


def proxy(url: SecretStr | None) -> SecretStr | None:
    """Check the URL of a proxy."""
    return None if url is None else SecretStr(check_proxy(url.get_secret_value()))


def notify_url(url: SecretStr | None) -> SecretStr | None:
    """Check the URL that notifications are sent to; errors do not repeat it, because it may be a secret."""
    if url is None:
        return None
    text = url.get_secret_value()
    parts = split_url(text)
    if parts.scheme not in {"https", "http"} or not parts.hostname or len(text) > _LONGEST_URL or not is_token(text):
        raise ValueError("expected a URL such as https://hooks.slack.com/services/…")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain http would expose the notifications to the network; use https (http only to loopback)")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("expected a URL without user and fragment; DOCV_NOTIFY_SECRET signs the notifications")
    return url


def notify_secret(secret: SecretStr | None) -> SecretStr | None:
    """Check the key that signs notifications."""
    if secret is not None:
        _check_token(secret.get_secret_value())
    return secret


def s3_endpoint(url: str | None) -> str | None:
    """Check the URL of an S3."""
    if url is None:
        return None
    parts = split_url(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("expected a URL such as https://s3.example.com")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"expected a URL without user, query and fragment; {_KEYS_OF_S3}")
    return url


def archive_url(url: str) -> str:
    """Check the URL of the archive."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() == "file":
        return _check_folder_url(url)
    if colon and scheme.lower() == "s3" and rest.startswith("//"):
        return _check_bucket_url(f"s3:{rest}".rstrip("/"))
    if scheme == "arn":
        raise ValueError(_NO_ARN)
    if rest.startswith("//") and _SCHEME.fullmatch(scheme):
        raise ValueError(f"{_ARCHIVE}; {scheme}:// is neither a folder nor an S3")
    if url and not colon and not url.startswith("~"):
        raise ValueError(f"{_ARCHIVE}; for this folder {Path(url).absolute().as_uri()}")
    raise ValueError(_ARCHIVE)


def _check_bucket_url(url: str) -> str:
    bucket, *prefix = url.removeprefix("s3://").split("/")
    if "@" in bucket:
        raise ValueError(f"expected s3://bucket/prefix without user and password; {_KEYS_OF_S3}")
    if bucket.startswith("arn:"):
        raise ValueError(_NO_ARN)
    if "?" in url or "#" in url:
        raise ValueError("expected s3://bucket/prefix without ? and #")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("expected s3://bucket/prefix; a bucket has 3 to 255 letters, digits, dots and hyphens")
    if not {"", ".", ".."}.isdisjoint(prefix):
        raise ValueError("expected s3://bucket/prefix, no two slashes in a row, and no part of dots")
    return url


def _check_folder_url(url: str) -> str:
    parts = split_url(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or not path.isprintable():
        raise ValueError(_ARCHIVE)
    if "?" in url or "#" in url:
        raise ValueError("expected file:///path; write ? as %3F and # as %23")
    if not os.path.normpath(path).strip("/"):
        raise ValueError("the archive cannot be the root of this machine; name a folder, file:///path")
    return url


def redis_url(url: SecretStr | None) -> SecretStr | None:
    """Check the URL of a Redis."""
    return None if url is None else SecretStr(check_redis_url(url.get_secret_value()))


def broker_url(url: SecretStr | None) -> SecretStr | None:
    """Check the URL of a RabbitMQ."""
    if url is not None and (parts := split_url(url.get_secret_value())).scheme not in {"amqp", "amqps"}:
        raise ValueError(f"expected amqp://user:password@host:5672/vhost or amqps://…, not {parts.scheme or 'that'}")
    if url is not None and parts.scheme == "amqps" and ";" in url.get_secret_value():
        raise ValueError("give one address of RabbitMQ: the name in its certificate is compared with that of one host")
    return url


def credentials(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check Bearer tokens and pairs of user and password."""
    for secret in secrets:
        # The user name of a pair is not secret, so the password alone must be long enough.
        name, colon, password = secret.get_secret_value().partition(":")
        _check_token(password if colon else name)
    return secrets


def bearer_tokens(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check Bearer tokens of other systems."""
    for token in tokens:
        if ":" in token.get_secret_value():
            raise ValueError("expected Bearer tokens, separated by commas; user:password is for webhooks and persons")
        _check_token(token.get_secret_value())
    return tokens


def encryption_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check encryption keys."""
    names = [key.get_secret_value().partition(":")[0] for key in keys]
    if not all(map(_is_encryption_key, keys)):
        raise ValueError("expected id:key, the key 32 bytes in base64; `openssl rand -base64 32` makes a good one")
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
    """Return whether a text is one word of visible ASCII characters, which a header may contain."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def _check_token(secret: str) -> None:
    if not is_token(secret):
        raise ValueError("each must be one word of visible ASCII characters; `openssl rand -hex 32` makes a good one")
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"each token or password must have at least {SHORTEST_SECRET} characters; "
            "`openssl rand -hex 32` makes a good one"
        )


def tags(text: str) -> Iterator[tuple[str, str]]:
    """Yield the tags in a text, name and value of each."""
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not _TAG.fullmatch(name) or (value and not _TAG.fullmatch(value)):
            raise ValueError(f"{part!r} is not a valid tag; expected name=value of letters, digits, space and _.:/=+-@")
        yield name, value


def kind_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Check file name patterns for the kinds of documents."""
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
    """Return a rejected text for a message: shortened, on one line, and in quotes."""
    return repr(text[:80])
