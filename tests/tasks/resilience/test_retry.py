import dataclasses
import inspect

import pytest
from tenacity import RetryCallState

from tasks import errors
from tasks.errors import (
    AccountHeld,
    AccountRefused,
    ArchiveHeld,
    BadBundle,
    BundleTooLarge,
    Charge,
    ConnectionFailed,
    Fault,
    Forbidden,
    IntegrityError,
    ManifestChanged,
    RateLimited,
    ServiceFailed,
    StorageError,
    UnexpectedAnswer,
    WorkersLost,
)
from tasks.model.job import Job, Queue, Trigger
from tasks.resilience.retry import (
    CAUSES,
    AwaitHold,
    DeadLetterNow,
    Release,
    RetryLater,
    RetryPolicy,
    cause_of,
    check_workers_lost,
    decide,
    failure_of,
    retry_quickly,
)

FRESH = Job("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "t", Queue.LIVE, "default", False, 0, 0, Trigger("message"))  # noqa: FBT003
POLICY = RetryPolicy(attempts=4, retry_delay=60.0)
RETRYABLE = [
    ServiceFailed(503),
    ConnectionFailed("timeout"),
    UnexpectedAnswer("a login page", 200),
    StorageError("create", "timeout"),
    ManifestChanged(),
]


def after(attempts: int = 0, lost: int = 0) -> Job:
    return dataclasses.replace(FRESH, attempts=attempts, lost=lost)


# -- decide


@pytest.mark.parametrize(
    ("charge", "attempts", "verdict"),
    [
        (Charge.NOTHING, 3, RetryLater(wait=60, attempts=3)),
        (Charge.ATTEMPT, 2, RetryLater(wait=240, attempts=3)),
        (Charge.ATTEMPT, 3, DeadLetterNow(attempts=4)),
        (Charge.ALL, 0, DeadLetterNow(attempts=1)),
    ],
)
def test_decide_charges_the_attempts_that_a_403_specifies(
    charge: Charge, attempts: int, verdict: RetryLater | DeadLetterNow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, _: low)
    assert decide(Forbidden(charge), after(attempts), POLICY, Fault.EVALUATION) == verdict


def test_failure_of_a_403_has_its_cause_and_status() -> None:
    failure = failure_of(Forbidden(Charge.ALL))
    assert (failure.cause, failure.status) == ("forbidden", 403)
    assert "may not read this evaluation" in failure.why


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: type(error).__name__)
def test_decide_retries_a_retryable_error_and_counts_the_attempt(error: Exception) -> None:
    verdict = decide(error, after(attempts=1), POLICY, Fault.EVALUATION)
    assert isinstance(verdict, RetryLater)
    assert verdict.attempts == 2


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: type(error).__name__)
def test_decide_makes_a_dead_letter_of_the_last_attempt(error: Exception) -> None:
    assert isinstance(decide(error, after(attempts=2), POLICY, Fault.EVALUATION), RetryLater)
    assert decide(error, after(attempts=3), POLICY, Fault.EVALUATION) == DeadLetterNow(attempts=4)
    assert decide(error, after(attempts=9), POLICY, Fault.EVALUATION) == DeadLetterNow(attempts=10)


@pytest.mark.parametrize(
    "error", [RateLimited(1), AccountRefused(401), AccountHeld("quota", 3600), ArchiveHeld("cannot_write", 60)]
)
@pytest.mark.parametrize("attempts", [0, 3, 99])
def test_decide_charges_no_attempt_when_the_account_or_the_archive_has_to_wait(error: Exception, attempts: int) -> None:
    assert decide(error, after(attempts=attempts), POLICY, Fault.EVALUATION) == AwaitHold()


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: type(error).__name__)
def test_decide_charges_no_attempt_during_an_outage(error: Exception) -> None:
    assert decide(error, after(attempts=3), POLICY, Fault.SERVICE) == AwaitHold()


def test_decide_releases_an_evaluation_that_a_fault_of_this_machine_stopped() -> None:
    assert (
        decide(StorageError("create", "disk full", Fault.MACHINE), after(attempts=3), POLICY, Fault.MACHINE)
        == Release()
    )


@pytest.mark.parametrize("error", [BundleTooLarge(1024), IntegrityError("another size"), WorkersLost(4)])
def test_decide_makes_a_dead_letter_of_a_permanent_error_at_once(error: Exception) -> None:
    assert decide(error, after(), POLICY, Fault.EVALUATION) == DeadLetterNow(attempts=1)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("x"), BadBundle("wrong_crc", "…")])
def test_decide_retries_a_bug_of_this_program(error: Exception) -> None:
    assert isinstance(decide(error, after(), POLICY, Fault.EVALUATION), RetryLater)
    assert isinstance(decide(error, after(attempts=3), POLICY, Fault.EVALUATION), DeadLetterNow)


@pytest.mark.parametrize(("failed", "pause"), [(0, 60), (1, 120), (2, 240), (5, 1920), (8, 15_360), (9, 21_600)])
def test_decide_doubles_the_pause_with_each_failed_attempt(failed: int, pause: float) -> None:
    verdict = decide(
        ServiceFailed(503), after(attempts=failed), RetryPolicy(attempts=100, retry_delay=60), Fault.EVALUATION
    )
    assert isinstance(verdict, RetryLater)
    assert pause <= verdict.wait <= pause * 1.25


def test_decide_limits_the_pause_to_6_hours_plus_jitter() -> None:
    verdict = decide(
        ServiceFailed(503), after(attempts=98), RetryPolicy(attempts=100, retry_delay=86_400), Fault.EVALUATION
    )
    assert isinstance(verdict, RetryLater)
    assert 6 * 3600 <= verdict.wait <= 7.5 * 3600


def test_decide_spreads_the_attempts_that_failed_together() -> None:
    verdicts = {decide(ServiceFailed(503), after(), POLICY, Fault.EVALUATION) for _ in range(20)}
    assert len(verdicts) > 1


# -- lost workers


def test_check_workers_lost_raises_when_as_many_workers_died_as_attempts_are_allowed() -> None:
    check_workers_lost(after(lost=3, attempts=3), POLICY)
    with pytest.raises(WorkersLost) as caught:
        check_workers_lost(after(lost=4), POLICY)
    assert caught.value.times == 4


# -- causes


def test_cause_of_is_the_cause_of_an_archive_error_or_the_class_of_another() -> None:
    assert cause_of(ServiceFailed(503)) == "service_failed"
    assert cause_of(BadBundle("wrong_crc", "…")) == "wrong_crc"
    assert cause_of(KeyError("a name from a bundle")) == "fault_KeyError"


# -- quick retries


async def repeat_request(policy: RetryPolicy, *answers: Exception | str) -> tuple[int, object]:
    """Repeat a request until it is answered; return the number of requests, and the answer."""
    remaining, requests = list(answers), 0
    try:
        async for attempt in retry_quickly(policy):
            with attempt:
                requests += 1
                answer = remaining.pop(0)
                if isinstance(answer, Exception):
                    raise answer  # noqa: TRY301  # the loop under test has to catch it
                return requests, answer
    except Exception as error:  # noqa: BLE001  # the error is the result
        return requests, error
    raise AssertionError


AT_ONCE = RetryPolicy(quick_attempts=3, quick_pause=0.0)


async def test_retry_quickly_ends_with_the_first_answer() -> None:
    assert await repeat_request(AT_ONCE, "a bundle") == (1, "a bundle")


async def test_retry_quickly_repeats_a_request_that_may_succeed_soon() -> None:
    assert await repeat_request(AT_ONCE, ServiceFailed(503), ConnectionFailed("reset"), "a bundle") == (3, "a bundle")


async def test_retry_quickly_raises_the_error_of_the_last_request() -> None:
    last = ServiceFailed(504)
    assert await repeat_request(AT_ONCE, ServiceFailed(502), ServiceFailed(503), last, "too late") == (3, last)


@pytest.mark.parametrize("error", [RateLimited(1), AccountRefused(401), BundleTooLarge(1), RuntimeError("ours")])
async def test_retry_quickly_does_not_repeat_a_request_that_cannot_succeed_soon(error: Exception) -> None:
    assert await repeat_request(AT_ONCE, error, "never requested") == (1, error)


async def test_retry_quickly_ends_when_its_time_is_up() -> None:
    error = ServiceFailed(503)
    policy = dataclasses.replace(AT_ONCE, quick_attempts=100, quick_seconds=0.0)
    assert await repeat_request(policy, error, "never requested") == (1, error)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (20, 20.0)])
def test_retry_quickly_doubles_the_pause_with_full_jitter_up_to_a_limit(attempt: int, longest: float) -> None:
    loop = retry_quickly(RetryPolicy(quick_pause=0.5, quick_seconds=60))
    state = RetryCallState(loop, None, (), {})
    state.attempt_number = attempt
    pauses = [loop.wait(state) for _ in range(200)]
    assert 0 <= min(pauses) < longest / 2 < max(pauses) <= longest


def test_causes_has_a_word_for_every_error_that_can_stop_an_attempt() -> None:
    families = errors.RetryableError | errors.BlockedError | errors.PermanentError | errors.Forbidden | errors.LeaseLost
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert {kind.cause for kind in kinds if issubclass(kind, families)} == set(CAUSES)
    assert len(CAUSES) < 30
    assert all(cause.replace("_", "").isalpha() for cause in CAUSES)
