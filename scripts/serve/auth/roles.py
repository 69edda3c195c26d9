"""Identify callers by their secrets: operators, viewers, producers and systems that report events."""

import enum
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import SecretStr

from scripts.serve.auth.credentials import digest, normalize_secret, read_credentials
from scripts.serve.http.responses import HTTPError

# Browsers ask for a name and a password if they read this; some do not understand a list of schemes in one header.
_SCHEME = 'Basic realm="docv-archive", charset="UTF-8"'


class Role(enum.Enum):
    """What a caller may do; a secret of several roles has the first of them."""

    OPERATOR = enum.auto()
    """Read pages, see documents, and act."""
    VIEWER = enum.auto()
    """Read pages."""
    PRODUCER = enum.auto()
    """Submit IDs, and read health and metrics."""
    RECORDS = enum.auto()
    """Report events that start clocks of the retention schedule, and nothing else."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller with a valid secret.

    Attributes:
        name: the name in the access log: a user name, or the beginning of the hash of a token.
        role: what the caller may do.
        known_by: the hash of the secret.
    """

    name: str
    role: Role
    known_by: str


CALLER = web.RequestKey("caller", Caller)
"""The caller of an authenticated request."""


class Authenticator:
    """Knows the secrets of all roles.

    Args:
        secrets: those of each role: Bearer tokens, or ``user:password`` for Basic. A browser cannot send a token, so a
            token is also valid as the password of any user name.
    """

    def __init__(self, secrets: Mapping[Role, Iterable[SecretStr]]) -> None:
        self._known = [_known(secret.get_secret_value(), role) for role in Role for secret in secrets.get(role, ())]

    def authenticate(self, request: web.BaseRequest) -> Caller:
        """Return the caller of a request.

        Raises:
            HTTPError: the secret is missing or not valid; the response is the same in both cases.
        """
        credentials = read_credentials(request)
        # A password is also tried as a token, whatever the user name.
        scheme, _, pair = credentials.partition(b" ")
        as_token = b"bearer " + pair.partition(b":")[2] if scheme == b"basic" else credentials
        digests = digest(credentials), digest(as_token)
        # Compared with every secret, so that the time does not depend on which one matches.
        equal = [[hmac.compare_digest(known, each) for each in digests] for known, _ in self._known]
        found = [caller for (_, caller), same in zip(self._known, equal, strict=True) if any(same)]
        if not found:
            raise HTTPError(401, "send a valid secret in the Authorization header", {"WWW-Authenticate": _SCHEME})
        return found[0]


_USUAL = frozenset(Role) - {Role.RECORDS}


def require_auth(
    authenticator: Authenticator, public_routes: Iterable[str], roles: Mapping[str, Collection[Role]]
) -> Middleware:
    """Return the middleware that answers requests without a valid secret with 401, whatever their path.

    Args:
        authenticator: knows the secrets.
        public_routes: routes that check secrets themselves, or need none.
        roles: the roles that may call a route; by default all but ``RECORDS``, and the handler may allow fewer.
    """
    routes = frozenset(public_routes)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        # A webhook's secret is not valid here: a 401 for a wrong path would look like a wrong secret.
        is_unknown = isinstance(request.match_info.http_exception, web.HTTPNotFound)
        if is_unknown and request.path.startswith("/webhooks/"):
            return await handler(request)
        if resource is None or resource.canonical not in routes:
            request[CALLER] = caller = authenticator.authenticate(request)
            if caller.role not in roles.get(resource.canonical if resource else "", _USUAL):
                raise HTTPError(403, "this secret does not allow this request")
        return await handler(request)

    return guard


def is_same_site(request: web.BaseRequest) -> bool:
    """Return whether a request comes from this site; programs send neither header, and pass."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Browsers do not send it over plain HTTP.
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def _known(secret: str, role: Role) -> tuple[bytes, Caller]:
    known_by = digest(normalize_secret(secret))
    name, colon, _ = secret.partition(":")
    return known_by, Caller(name if colon else f"token-{known_by.hex()[:8]}", role, known_by.hex())
