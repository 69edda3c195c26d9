"""Who is asking, and in which role: operators, viewers and producers, each known by a secret."""

import enum
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import SecretStr

from scripts.serve.auth.credentials import digest, normalize_secret, read_credentials
from scripts.serve.http.responses import HTTPError

_log = structlog.get_logger("docv.access")
# Browsers ask for a name and a password when they read this; a list of schemes in one header puzzles some of them.
_SCHEME = 'Basic realm="docv-archive", charset="UTF-8"'


class Role(enum.Enum):
    """What somebody may do here; whoever has a secret of several roles has the first of them."""

    OPERATOR = enum.auto()
    """Look, see pictures, and act."""
    VIEWER = enum.auto()
    """Look."""
    PRODUCER = enum.auto()
    """Hand in IDs, and see how the process is."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has shown a good secret.

    Attributes:
        name: what the access log calls them: a user name, or a token by its hash.
        role: what they may do.
        known_by: the hash of the secret.
    """

    name: str
    role: Role
    known_by: str


CALLER = web.RequestKey("caller", Caller)
"""Who is asking, of a request that came past the guard."""


def log_access(caller: Caller, event: str, **facts: object) -> None:
    """Write down who looked at what, or who did what: one line, never a name out of a bundle."""
    _log.info(event, actor=caller.name, role=caller.role.name.lower(), **facts)


class Authenticator:
    """All whom the doors know by name.

    Args:
        secrets: of each role: Bearer tokens, or ``user:password`` for Basic. A browser cannot send a token, so it is
            good as the password of any user name, too.
    """

    def __init__(self, secrets: Mapping[Role, Iterable[SecretStr]]) -> None:
        self._known = [_known(secret.get_secret_value(), role) for role in Role for secret in secrets.get(role, ())]

    def authenticate(self, request: web.BaseRequest) -> Caller:
        """Return who is asking.

        Raises:
            HTTPError: nothing was shown, or nothing of ours; the answer is one and the same.
        """
        said = read_credentials(request)
        # A password also counts as if it had been shown as a token, whatever the user name.
        scheme, _, pair = said.partition(b" ")
        as_token = b"bearer " + pair.partition(b":")[2] if scheme == b"basic" else said
        digests = digest(said), digest(as_token)
        # Compared with each of them, whatever came of the others: how long it takes tells nothing.
        equal = [[hmac.compare_digest(known, each) for each in digests] for known, _ in self._known]
        found = [caller for (_, caller), same in zip(self._known, equal, strict=True) if any(same)]
        if not found:
            raise HTTPError(401, "show a valid secret in Authorization", {"WWW-Authenticate": _SCHEME})
        return found[0]


def require_auth(authenticator: Authenticator, public_routes: Iterable[str]) -> Middleware:
    """Return the middleware that lets nobody in who has no good secret, not even to learn what is not there.

    Args:
        authenticator: who may come in.
        public_routes: routes that see to it themselves, or are for everybody.
    """
    routes = frozenset(public_routes)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is None or resource.canonical not in routes:
            request[CALLER] = authenticator.authenticate(request)
        return await handler(request)

    return guard


def _known(secret: str, role: Role) -> tuple[bytes, Caller]:
    known_by = digest(normalize_secret(secret))
    name, colon, _ = secret.partition(":")
    return known_by, Caller(name if colon else f"token-{known_by.hex()[:8]}", role, known_by.hex())
