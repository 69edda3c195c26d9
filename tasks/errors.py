"""What can stop an attempt, and would another attempt help?

    ArchiveError
    ├── InvalidInput          refused at the door; nothing was accepted
    │   ├── BadEvalId
    │   ├── BadRunName
    │   ├── RunTaken          a run of this name has other IDs
    │   └── BadMessage
    ├── RetryableError        another attempt may help; it counts
    │   ├── ServiceFailed     408, 5xx
    │   ├── ConnectionFailed  no whole answer came back
    │   ├── UnexpectedAnswer  an answer that RiskOS would not give: a proxy, a login page
    │   ├── StorageError      the bucket did not do what it was asked
    │   ├── SpoolError        the disk of this machine did not
    │   └── ManifestChanged   another worker wrote the manifest in between
    ├── BlockedError          the account, or the archive, stands still; it counts for nothing
    │   ├── RateLimited       429
    │   ├── AccountRefused    401, 403
    │   ├── AccountHeld       the account stands still, here is until when
    │   ├── AccountBusy       the account has its share of this worker's places
    │   ├── AccountUnknown    this worker does not know the account; another may
    │   └── ArchiveHeld       the archive does
    ├── PermanentError        no attempt can help before a person has looked
    │   ├── BundleTooLarge    larger than the settings allow
    │   ├── IntegrityError    the archive holds other bytes than it must
    │   ├── SealingKeyMissing an object is sealed with a key that the settings do not have
    │   └── WorkersLost       so many workers died over it that it may be the cause
    ├── BadBundle             the bundle is damaged or unsafe: fetched again, then ``unreadable``
    └── LeaseLost             another worker has the evaluation now

The family of an error answers the question, so nobody has to know all of them. Every argument
goes to ``super().__init__``, so that errors pickle; ``__str__`` makes the sentence.
"""


class ArchiveError(Exception):
    """Anything of ours that stops the work on an evaluation.

    Attributes:
        cause: a short fixed word for reports and counters; never holds data of a person.
    """

    cause = "error"


class InvalidInput(ArchiveError):
    """What came in cannot be worked on; it was refused at the door."""

    cause = "bad_input"

    @property
    def safe_message(self) -> str:
        """The sentence, with nothing in it of what came in: for logs and dead letters."""
        return str(self)


class BadEvalId(InvalidInput):
    """A text that is no evaluation ID.

    Args:
        shown: the text as it may be shown to a person: cut and without control characters.
        why: what is wrong with it.
    """

    cause = "bad_eval_id"

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(shown, why)
        self.shown, self.why = shown, why

    def __str__(self) -> str:
        return f"{self.shown!r} is no evaluation ID: {self.why}"

    @property
    def safe_message(self) -> str:
        """The sentence without the text, which may be anybody's name."""
        return f"an ID is no evaluation ID: {self.why}"


class BadRunName(InvalidInput):
    """A text that is no name of a run."""

    cause = "bad_run_name"

    def __str__(self) -> str:
        return "the name of a run has 1 to 64 letters, digits, dots, hyphens and underscores"


class RunTaken(InvalidInput):
    """A run of this name is there already, and means something else.

    Args:
        run: its name.
        begun_at: when it began.
    """

    cause = "run_taken"

    def __init__(self, run: str, begun_at: str) -> None:
        super().__init__(run, begun_at)
        self.run, self.begun_at = run, begun_at

    def __str__(self) -> str:
        return (
            f"run {self.run} began {self.begun_at} with other IDs, or another --account, --refresh or "
            "--even-if-erased; nothing was queued: choose another name with --run"
        )


class BadMessage(InvalidInput):
    """A Celery message that does not fit the contract.

    Args:
        why: what is wrong with it; never a part of its body.
    """

    cause = "bad_message"

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the message does not fit the contract: {self.why}"


class RetryableError(ArchiveError):
    """Another attempt may help; the failed one counts.

    Attributes:
        probe: whether it stopped the probe of a hold.
        status: the HTTP status that was answered, where there was one.
    """

    cause = "try_again"
    probe = False
    status: int | None = None


class ServiceFailed(RetryableError):
    """RiskOS answered that it could not answer.

    Args:
        status: the HTTP status: 408 or 5xx.
    """

    cause = "service_failed"

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return f"RiskOS answered with status {self.status}"


class ConnectionFailed(RetryableError):
    """No whole answer came back from RiskOS.

    Args:
        what: what broke, such as ``timeout`` or the name of the client's exception.
    """

    cause = "connection_failed"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the connection to RiskOS failed: {self.what}"


class UnexpectedAnswer(RetryableError):
    """An answer that RiskOS would not give: a proxy's, a login page, another evaluation's.

    Args:
        what: what was unexpected, in our own words.
        status: the HTTP status.
    """

    cause = "unexpected_answer"

    def __init__(self, what: str, status: int) -> None:
        super().__init__(what, status)
        self.what, self.status = what, status

    def __str__(self) -> str:
        return f"an unexpected answer with status {self.status}: {self.what}"


class StorageError(RetryableError):
    """The bucket did not do what it was asked.

    Args:
        doing: what was asked of it, such as ``create`` or ``read``.
        what: the kind of failure; never the store's own text, which holds URL and key.
    """

    cause = "store_failed"

    def __init__(self, doing: str, what: str) -> None:
        super().__init__(doing, what)
        self.doing, self.what = doing, what

    def __str__(self) -> str:
        return f"the archive could not {self.doing} an object: {self.what}"


class SpoolError(RetryableError):
    """A large content could not be put on this machine's disk.

    Args:
        what: the kind of failure, as the system names it.
    """

    cause = "spool_failed"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"a large content could not be spooled to DOCV_STATE_DIR: {self.what}"


class ManifestChanged(RetryableError):
    """Another worker wrote the manifest between our reading and our writing it."""

    cause = "manifest_changed"

    def __str__(self) -> str:
        return "another worker wrote this manifest in the meantime"


class BlockedError(ArchiveError):
    """The account, or the archive, stands still; the evaluation loses nothing by it.

    Attributes:
        wait: seconds until it is worth asking again.
    """

    cause = "not_now"
    wait: float


class RateLimited(BlockedError):
    """RiskOS answered 429.

    Args:
        wait: seconds the service asked for, or our own guess.
    """

    cause = "rate_limited"

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait

    def __str__(self) -> str:
        return f"RiskOS asks to slow down; next request in {self.wait:.1f} s"


class AccountRefused(BlockedError):
    """RiskOS refused the key (401) or what it may do (403).

    Args:
        status: 401 or 403.
        wait: seconds until the next probe.
    """

    cause = "account_refused"

    def __init__(self, status: int, wait: float = 0.0) -> None:
        super().__init__(status, wait)
        self.status, self.wait = status, wait

    @property
    def what(self) -> str:
        """What that means, for a person."""
        what = "the API key is not accepted" if self.status == 401 else "the API key may not do this"  # noqa: PLR2004
        return f"RiskOS answered {self.status}: {what}"

    def __str__(self) -> str:
        return f"{self.what}; next probe in {self.wait:.0f} s"


class AccountHeld(BlockedError):
    """The account is on hold.

    Args:
        reason: the reason of the hold.
        wait: seconds until the hold may end.
    """

    cause = "account_held"

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason, wait)
        self.reason, self.wait = reason, wait

    def __str__(self) -> str:
        return f"the account is on hold ({self.reason}) for another {self.wait:.0f} s"


class AccountBusy(BlockedError):
    """The account has its share of this worker's places; those of other accounts come first."""

    cause = "account_busy"

    def __str__(self) -> str:
        return "its account has its share of this worker's places"


class AccountUnknown(BlockedError):
    """This worker does not know the account of the evaluation; one that does will take it up.

    Args:
        account: its name.
    """

    cause = "account_unknown"

    def __init__(self, account: str) -> None:
        super().__init__(account)
        self.account = account

    def __str__(self) -> str:
        return f"this worker knows no account {self.account}; see that all workers have the same DOCV_ACCOUNTS"


class ArchiveHeld(BlockedError):
    """The archive is on hold.

    Args:
        reason: the reason of the hold.
        wait: seconds until the hold may end.
    """

    cause = "archive_held"

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason, wait)
        self.reason, self.wait = reason, wait

    def __str__(self) -> str:
        return f"the archive is on hold ({self.reason}) for another {self.wait:.0f} s"


class PermanentError(ArchiveError):
    """No attempt can help before a person has looked."""

    cause = "needs_person"


class BundleTooLarge(PermanentError):
    """The bundle is larger than the settings allow; it was not read to its end.

    Args:
        most: bytes that are allowed.
    """

    cause = "bundle_too_large"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"the bundle is larger than {self.most} bytes; raise DOCV_MAX_BUNDLE_BYTES and redrive it"


class IntegrityError(PermanentError):
    """The archive holds other bytes than the ones its key, or its manifest, speaks of.

    Args:
        what: what differs, in our own words.
    """

    cause = "alarming_object"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the archive holds something it must not: {self.what}; nothing was overwritten"


class SealingKeyMissing(PermanentError):
    """An object is sealed with a key that the settings do not have.

    Args:
        key_id: ID of the key.
    """

    cause = "sealing_key_missing"

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"an object is sealed with the key {self.key_id!r}: put that key into DOCV_ENCRYPTION_KEYS, too"


class WorkersLost(PermanentError):
    """So many workers died over the evaluation that it may be the cause.

    Args:
        times: how often a worker died, or lost its lease, over it.
    """

    cause = "workers_lost"

    def __init__(self, times: int) -> None:
        super().__init__(times)
        self.times = times

    def __str__(self) -> str:
        return f"{self.times} workers died or lost their lease over this evaluation"


class BadBundle(ArchiveError):
    """The bundle is damaged or unsafe as a whole.

    Args:
        cause: a short fixed word, such as ``wrong_crc`` or ``overlapping_members``.
        why: one sentence for a person; never a name out of the bundle.
    """

    cause = "bad_bundle"

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(cause, why)
        self.cause, self.why = cause, why

    def __str__(self) -> str:
        return f"the bundle cannot be read: {self.why}"


class LeaseLost(ArchiveError):
    """Our lease on the evaluation ran out and another worker took it."""

    cause = "lease_lost"

    def __str__(self) -> str:
        return "the lease ran out; another worker has this evaluation now"


def message_of(error: Exception) -> str:
    """Return an error's sentence. Only our own errors are known to hold nothing but our own words."""
    return str(error) if isinstance(error, ArchiveError) else f"a fault of this program: {type(error).__name__}"


def cause_of(error: Exception) -> str:
    """Return the short fixed word for an error; for a fault of this program the name of its class."""
    return error.cause if isinstance(error, ArchiveError) else f"fault_{type(error).__name__}"
