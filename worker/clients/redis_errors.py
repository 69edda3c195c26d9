"""Explain why Redis cannot be used, from an error of redis-py, and what to do about it."""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.clients.primary import NotPrimary

_COMMAND = re.compile(r"'([a-z|]{1,40})' command")
_DENIED_IN_SCRIPT = re.compile(r"^ACL failure in script|^The user executing the script can't")
_TLS_ALERT = "b'\\x15"

_NAME_PRIMARY = (
    "if it is a replica, name its primary in DOCV_REDIS_URL, or after a failover wait until the name points to the new "
    "primary; see docs/operations.md#redis-lost"
)
_TRUST = "add ?ssl_ca_certs=/path/ca.pem to DOCV_REDIS_URL, and use the host name of the certificate"


@dataclass(frozen=True, slots=True)
class RedisProblem:
    """Why Redis cannot be used. It never repeats the URL, which contains a password.

    Attributes:
        message: what is wrong, as the rest of a sentence about Redis.
        fix: what to do.
    """

    message: str
    fix: str

    def __str__(self) -> str:
        return f"Redis {self.message}: {self.fix}"


CLUSTER = RedisProblem(
    "runs in cluster mode, which is not supported",
    "use a Redis without cluster mode, since one script works on several keys",
)
_SENTINEL = RedisProblem(
    "is a Sentinel here, not a server with data",
    "set DOCV_REDIS_URL to redis+sentinel://host:26379/service/0, or to the port of the server",
)
_TLS_ONLY = RedisProblem("closes plain connections", "if the port expects TLS, use rediss:// in DOCV_REDIS_URL")
_DATABASE = RedisProblem(
    "has no database with this number", "end DOCV_REDIS_URL in /0, or raise `databases` in Redis's configuration"
)
# By a part of the error's text, for errors without their own class in redis-py.
_BY_TEXT = {
    "DB index is out of range": _DATABASE,
    "invalid DB index": _DATABASE,
    "not allowed in cluster mode": CLUSTER,
    "unknown command 'SELECT'": _SENTINEL,
    "Connection closed by server": _TLS_ONLY,
    _TLS_ALERT: _TLS_ONLY,
    "No space left on device": RedisProblem(
        "takes no writes because its disk is full (MISCONF)",
        "free some space there; the embedded Redis of `run` writes to the disk of DOCV_STATE_DIR",
    ),
    "MISCONF": RedisProblem("cannot write to its disk (MISCONF)", "check its log, and the disk of its files"),
    "without any password configured": RedisProblem(
        "has no password, but DOCV_REDIS_URL has one", "remove it there, or set requirepass"
    ),
}
_BY_CLASS: dict[tuple[type[BaseException], ...], RedisProblem] = {
    (BusyLoadingError,): RedisProblem("is still reading its file (LOADING)", "wait until it has finished"),
    (ClusterError, MovedError, ClusterCrossSlotError): CLUSTER,
    (ssl.SSLError,): RedisProblem(
        "does not speak TLS on this port", "use redis:// in DOCV_REDIS_URL, or the port with TLS"
    ),
    (MasterNotFoundError,): RedisProblem(
        "has no primary that its Sentinels report",
        "check hosts, service and login of the Sentinels in DOCV_REDIS_URL",
    ),
    (InvalidResponse,): RedisProblem("is not the service that answers there", "check host and port in DOCV_REDIS_URL"),
    (socket.gaierror,): RedisProblem(
        "does not answer because its host name is unknown", "check DOCV_REDIS_URL and DNS"
    ),
    (RedisTimeoutError, TimeoutError): RedisProblem(
        "does not answer in time", "check host, port and firewalls, and for rediss:// that the port speaks TLS"
    ),
}


def find_problem_of_mode(facts: Mapping[str, object]) -> RedisProblem | None:
    """Return why a server with these fields in its INFO cannot be used: cluster mode, or a Sentinel."""
    modes = {facts.get("redis_mode"), facts.get("server_mode")}
    if "cluster" in modes or facts.get("cluster_enabled") == 1:
        return CLUSTER
    return _SENTINEL if "sentinel" in modes else None


def explain_redis_error(error: BaseException) -> RedisProblem:
    """Return why Redis cannot be used, from an error of redis-py and the errors that led to it."""
    unknown = RedisProblem(
        f"does not answer ({type(error).__name__})", "check that it runs and that DOCV_REDIS_URL points to it"
    )
    return next(filter(None, map(_explain, _chain(error))), unknown)


def _explain(error: BaseException) -> RedisProblem | None:
    text = str(error)
    for part, problem in _BY_TEXT.items():
        if part in text:
            return problem
    match error:
        case NotPrimary():
            return RedisProblem(f"takes no writes ({error})", _NAME_PRIMARY)
        case AuthenticationError():
            return _explain_login(error)
        case ResponseError() if isinstance(error, NoPermissionError) or _DENIED_IN_SCRIPT.search(text):
            command = _COMMAND.search(text)
            what = f"the command {command[1]}" if command else "these keys or commands"
            return RedisProblem(
                f"does not allow this user {what} (NOPERM)", "give it the ACL of docs/planning.md#login-of-redis"
            )
        case ssl.SSLCertVerificationError():
            return RedisProblem(f"has a certificate that is not trusted ({error.verify_message})", _TRUST)
    return next((problem for kinds, problem in _BY_CLASS.items() if isinstance(error, kinds)), None)


def _explain_login(error: AuthenticationError) -> RedisProblem:
    if error.status_code == "NOAUTH" or "Authentication required" in str(error):
        return RedisProblem("requires a password", "set DOCV_REDIS_URL to redis://user:password@host:6379/0")
    return RedisProblem(
        "does not accept user and password",
        "correct them in DOCV_REDIS_URL; @ / # % in a password must be encoded as %40 %2F %23 %25",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it, the first cause first."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or found.__context__
    return reversed(chain)
