"""The errors that stop an attempt at an evaluation; their families say whether another attempt may help.

    ArchiveError
    ├── InvalidInput          the input was rejected; nothing was queued
    │   ├── BadEvalId         a text is not a valid evaluation ID
    │   ├── BadRunName        a text is not a valid name of a run
    │   ├── BadMatterName     a text is not a valid name of a matter
    │   ├── RunTaken          a run of this name has other IDs or options
    │   ├── RunCancelled      the run was cancelled
    │   └── BadMessage        a Celery message breaks the contract
    ├── RetryableError        another attempt may help; the failed one counts
    │   ├── ServiceFailed     RiskOS answered 408 or 5xx
    │   ├── ConnectionFailed  no complete response arrived from RiskOS
    │   ├── UnexpectedAnswer  a proxy's response, a login page, another evaluation's bundle
    │   ├── StorageError      a request to the bucket failed
    │   ├── SpoolError        a write to the local disk failed
    │   └── ManifestChanged   another worker wrote the manifest after this one had read it
    ├── BlockedError          the account or the archive is not available; the attempt does not count
    │   ├── RateLimited       RiskOS answered 429
    │   ├── AccountRefused    RiskOS refuses the API key (401), or every evaluation (403)
    │   ├── AccountHeld       the account is on hold
    │   ├── AccountBusy       the account uses its share of this worker's slots; other accounts come first
    │   ├── AccountUnknown    this worker does not know the account; another worker may
    │   ├── RunHeld           the run is on hold
    │   └── ArchiveHeld       the archive is on hold
    ├── PermanentError        no attempt can help until a person has looked into it
    │   ├── BundleTooLarge    the bundle is larger than the settings allow; the rest was not downloaded
    │   ├── IntegrityError    the archive holds other bytes than its key or its manifest says
    │   ├── SealingKeyMissing an object is sealed with a key that the settings do not have
    │   └── WorkersLost       workers died so often that the evaluation may be the cause
    ├── Forbidden             RiskOS answered 403 for this evaluation; ``Charge`` says what that costs it
    ├── BadBundle             the bundle is damaged or unsafe: downloaded again, then ``unreadable``
    └── LeaseLost             the lease ran out, and another worker has the evaluation now

Callers handle families, so a new error needs no new handler.
"""

import copy
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self, TypeVar, dataclass_transform

_Class = TypeVar("_Class", bound="type[ArchiveError]")


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def _define(cause: str, message: str) -> Callable[[_Class], _Class]:
    """Return a decorator that makes an error a dataclass of its arguments, and sets its cause and message."""

    def define(cls: _Class) -> _Class:
        # The other generated methods would break hashing and add 2 ms to the import.
        dataclass(eq=False, repr=False, match_args=False)(cls)
        cls.cause, cls.message = cause, message
        return cls

    return define


class ArchiveError(Exception):
    """Base class of all errors that stop the work on an evaluation.

    Attributes:
        cause: a short fixed word for reports and metrics; never personal data.
        message: one sentence, with the arguments as ``{name}``; ``str()`` fills them in.
        request_id: ID that RiskOS gave to the request, if the error follows from RiskOS's answer.
    """

    cause = "error"
    message = ""
    request_id: str | None = None

    def __post_init__(self) -> None:
        super().__init__(*vars(self).values())  # the fields in order; pickle and copy call the class with args

    def __str__(self) -> str:
        return self.message.format_map(vars(self))

    def with_request_id(self, request_id: str | None) -> Self:
        """Return a copy of the error that names the request that it came from."""
        named = copy.copy(self)
        named.request_id = request_id
        return named


class InvalidInput(ArchiveError):
    """The input was rejected; nothing was queued."""

    cause = "bad_input"

    @property
    def safe_message(self) -> str:
        """The message without any part of the input, for logs and dead letters."""
        return str(self)


@_define("bad_eval_id", "{shown!r} is not a valid evaluation ID: {why}")
class BadEvalId(InvalidInput):
    shown: str  # the text, shortened and without control characters
    why: str

    @property
    def safe_message(self) -> str:
        """The message without the text, which may be a person's name."""
        return f"an ID is not a valid evaluation ID: {self.why}"


@_define("bad_run_name", "the name of a run has 1 to 64 letters, digits, dots, hyphens and underscores")
class BadRunName(InvalidInput): ...


@_define("bad_matter_name", "the name of a matter has 1 to 48 lower-case letters, digits and hyphens")
class BadMatterName(InvalidInput): ...


@_define(
    "run_taken",
    "run {run} began {begun_at} with other IDs or evidence, or another --account, --refresh, "
    "--refresh-outcome or --even-if-erased; nothing was queued: choose another name with --run",
)
class RunTaken(InvalidInput):
    run: str
    begun_at: str


@_define("run_cancelled", "run {run} was cancelled; nothing was queued: --again starts it again from its first ID")
class RunCancelled(InvalidInput):
    run: str


@_define("bad_message", "the message does not fit the contract: {why}")
class BadMessage(InvalidInput):
    why: str  # never a part of its body


class Fault(enum.Enum):
    """Whose fault a failed attempt is."""

    UNKNOWN = enum.auto()
    """The service's or the evaluation's. Only attempts at other evaluations can show which."""
    MACHINE = enum.auto()
    """It may be this machine's own: its disk, network, certificates or credentials."""
    SERVICE = enum.auto()
    """The service's: it would refuse any other evaluation, too."""
    EVALUATION = enum.auto()
    """The evaluation's own: attempts at other evaluations succeed."""


class RetryableError(ArchiveError):
    """Another attempt may help. The failed one counts, unless a service or a machine is at fault."""

    cause = "try_again"
    fault: Fault = Fault.UNKNOWN
    """Whose fault it is, as far as the error itself can tell."""
    is_probe = False
    """Whether it stopped the probe of a hold."""
    status: int | None = None
    """The HTTP status of the response, if there was one."""

    def as_probe(self) -> Self:
        """Return a copy of the error, marked as one that stopped the probe of a hold."""
        failed = copy.copy(self)
        failed.is_probe = True
        return failed


@_define("service_failed", "RiskOS answered with status {status}")
class ServiceFailed(RetryableError):
    status: int = field()  # without field(), the inherited None would be its default


@_define("connection_failed", "the connection to RiskOS failed: {what}")
class ConnectionFailed(RetryableError):
    what: (
        str  # "timeout", or the class of the HTTP client's exception, with the reason from DNS, TLS, the OS or a proxy
    )
    fault: Fault = Fault.UNKNOWN


@_define("unexpected_answer", "an unexpected answer with status {status}: {what}")
class UnexpectedAnswer(RetryableError):
    what: str  # never a part of the response
    status: int = field()


@_define("store_failed", "the archive could not {doing} an object: {what}")
class StorageError(RetryableError):
    doing: str  # the operation, such as "create" or "read"
    what: str  # the kind of failure, and the store's error code; never its text, which contains URL and key
    fault: Fault = Fault.UNKNOWN


@_define("spool_failed", "large content could not be spooled to disk: {what}")
class SpoolError(RetryableError):
    what: str
    fault: Fault = Fault.MACHINE


@_define("manifest_changed", "another worker wrote this manifest in the meantime")
class ManifestChanged(RetryableError): ...


class BlockedError(ArchiveError):
    """The account or the archive is not available; the attempt does not count."""

    cause = "not_now"
    wait: float
    """Seconds until another attempt is worthwhile."""


@_define("rate_limited", "RiskOS asks to slow down; next request in {wait:.1f} s")
class RateLimited(BlockedError):
    wait: float


@_define("account_refused", "{what}; next probe in {wait:.0f} s")
class AccountRefused(BlockedError):
    status: int
    wait: float = 0.0

    @property
    def what(self) -> str:
        """The message without the waiting time."""
        is_key = self.status == HTTPStatus.UNAUTHORIZED
        return f"RiskOS answered {self.status}" + (": the API key is not accepted" if is_key else " to recent requests")

    def __str__(self) -> str:
        return self.message.format(what=self.what, wait=self.wait)


@_define("account_held", "the account is on hold ({reason}) for another {wait:.0f} s")
class AccountHeld(BlockedError):
    reason: str
    wait: float


@_define("account_busy", "its account uses its share of this worker's slots")
class AccountBusy(BlockedError): ...


@_define(
    "account_unknown",
    "this worker does not know the account {account}; check that all workers have the same DOCV_ACCOUNTS",
)
class AccountUnknown(BlockedError):
    account: str


@_define("run_held", "the run {run} is on hold: RiskOS had no documents in its first answers")
class RunHeld(BlockedError):
    run: str


@_define("archive_held", "the archive is on hold ({reason}) for another {wait:.0f} s")
class ArchiveHeld(BlockedError):
    reason: str
    wait: float


class PermanentError(ArchiveError):
    """No attempt can help until a person has looked into it."""

    cause = "needs_person"


@_define("bundle_too_large", "the bundle is larger than {most} bytes; raise DOCV_MAX_BUNDLE_BYTES and redrive it")
class BundleTooLarge(PermanentError):
    most: int


@_define("alarming_object", "an object in the archive is not valid: {what}; nothing was overwritten")
class IntegrityError(PermanentError):
    what: str


@_define(
    "sealing_key_missing",
    "an object is sealed with the key {key_id!r}: add that key to DOCV_ENCRYPTION_KEYS",
)
class SealingKeyMissing(PermanentError):
    key_id: str


@_define("workers_lost", "{times} workers died or lost their lease over this evaluation")
class WorkersLost(PermanentError):
    times: int


class Charge(enum.Enum):
    """What a 403 costs its evaluation."""

    NOTHING = enum.auto()
    """Nothing: it may be the account's fault, so there is another attempt."""
    ATTEMPT = enum.auto()
    """One attempt: no other evaluation can show whose fault it is."""
    ALL = enum.auto()
    """All attempts: RiskOS delivers other evaluations of the account, so the evaluation itself is forbidden."""


@_define("forbidden", "RiskOS answered 403: the API key may not read this evaluation")
class Forbidden(ArchiveError):
    charge: Charge
    status: int = int(HTTPStatus.FORBIDDEN)


@_define("bad_bundle", "the bundle cannot be read: {why}")
class BadBundle(ArchiveError):
    cause: str = field()  # such as "wrong_crc" or "overlapping_members"
    why: str  # never a name from the bundle


@_define("lease_lost", "the lease ran out; another worker has this evaluation now")
class LeaseLost(ArchiveError): ...


def message_of(error: Exception) -> str:
    """Return the message of an error, and only the class of a foreign exception: its text may hold personal data."""
    return (
        str(error) if isinstance(error, ArchiveError) else f"an internal error of docv-archive: {type(error).__name__}"
    )


def cause_of(error: Exception) -> str:
    """Return the cause of an error, or ``fault_`` and the class of a foreign exception."""
    return error.cause if isinstance(error, ArchiveError) else f"fault_{type(error).__name__}"
