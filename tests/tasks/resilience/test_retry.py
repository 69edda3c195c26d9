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
MAY_PASS = [
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
def test_a_403_costs_its_evaluation_what_its_charge_says(
    charge: Charge, attempts: int, verdict: RetryLater | DeadLetterNow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, _: low)
    assert decide(Forbidden(charge), after(attempts), POLICY, outage=False) == verdict


def test_a_dead_letter_of_a_403_says_so() -> None:
    failure = failure_of(Forbidden(Charge.ALL))
    assert (failure.cause, failure.status) == ("forbidden", 403)
    assert "may not read this evaluation" in failure.why


@pytest.mark.parametrize("error", MAY_PASS, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again_and_counts(error: Exception) -> None:
    verdict = decide(error, after(attempts=1), POLICY, outage=False)
    assert isinstance(verdict, RetryLater)
    assert verdict.attempts == 2


@pytest.mark.parametrize("error", MAY_PASS, ids=lambda error: type(error).__name__)
def test_the_last_attempt_is_the_last(error: Exception) -> None:
    assert isinstance(decide(error, after(attempts=2), POLICY, outage=False), RetryLater)
    assert decide(error, after(attempts=3), POLICY, outage=False) == DeadLetterNow(attempts=4)
    assert decide(error, after(attempts=9), POLICY, outage=False) == DeadLetterNow(attempts=10)


@pytest.mark.parametrize(
    "error", [RateLimited(1), AccountRefused(401), AccountHeld("quota", 3600), ArchiveHeld("cannot_write", 60)]
)
@pytest.mark.parametrize("attempts", [0, 3, 99])
def test_what_the_account_waits_for_costs_no_attempt(error: Exception, attempts: int) -> None:
    assert decide(error, after(attempts=attempts), POLICY, outage=False) == AwaitHold()


@pytest.mark.parametrize("error", MAY_PASS, ids=lambda error: type(error).__name__)
def test_what_an_outage_is_to_blame_for_costs_no_attempt(error: Exception) -> None:
    assert decide(error, after(attempts=3), POLICY, outage=True) == AwaitHold()


@pytest.mark.parametrize("error", [BundleTooLarge(1024), IntegrityError("another size"), WorkersLost(4)])
def test_what_only_a_person_can_help_is_given_up_at_once(error: Exception) -> None:
    assert decide(error, after(), POLICY, outage=False) == DeadLetterNow(attempts=1)


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), KeyError("x"), BadBundle("wrong_crc", "…")])
def test_a_fault_of_this_program_loses_nothing(error: Exception) -> None:
    assert isinstance(decide(error, after(), POLICY, outage=False), RetryLater)
    assert isinstance(decide(error, after(attempts=3), POLICY, outage=False), DeadLetterNow)


@pytest.mark.parametrize(("failed", "pause"), [(0, 60), (1, 120), (2, 240), (5, 1920), (8, 15_360), (9, 21_600)])
def test_the_pause_doubles_with_each_failed_attempt(failed: int, pause: float) -> None:
    verdict = decide(
        ServiceFailed(503), after(attempts=failed), RetryPolicy(attempts=100, retry_delay=60), outage=False
    )
    assert isinstance(verdict, RetryLater)
    assert pause <= verdict.wait <= pause * 1.25


def test_no_pause_is_much_longer_than_six_hours_however_often_it_failed() -> None:
    verdict = decide(
        ServiceFailed(503), after(attempts=98), RetryPolicy(attempts=100, retry_delay=86_400), outage=False
    )
    assert isinstance(verdict, RetryLater)
    assert 6 * 3600 <= verdict.wait <= 7.5 * 3600


def test_not_everything_that_failed_together_comes_back_together() -> None:
    verdicts = {decide(ServiceFailed(503), after(), POLICY, outage=False) for _ in range(20)}
    assert len(verdicts) > 1


# -- worn out


def test_an_evaluation_over_which_workers_die_is_refused_before_the_next_one_does() -> None:
    check_workers_lost(after(lost=3, attempts=3), POLICY)
    with pytest.raises(WorkersLost) as caught:
        check_workers_lost(after(lost=4), POLICY)
    assert caught.value.times == 4


# -- causes


def test_an_error_of_ours_has_its_word_and_a_fault_the_name_of_its_class() -> None:
    assert cause_of(ServiceFailed(503)) == "service_failed"
    assert cause_of(BadBundle("wrong_crc", "…")) == "wrong_crc"
    assert cause_of(KeyError("a name out of a bundle")) == "fault_KeyError"


# -- quick


async def asked(policy: RetryPolicy, *answers: Exception | str) -> tuple[int, object]:
    """Ask quickly until there is an answer; return how often that was, and the answer."""
    left, asked = list(answers), 0
    try:
        async for attempt in retry_quickly(policy):
            with attempt:
                asked += 1
                answer = left.pop(0)
                if isinstance(answer, Exception):
                    raise answer  # noqa: TRY301  # what the loop is about
                return asked, answer
    except Exception as error:  # noqa: BLE001  # whatever came out is what the test is about
        return asked, error
    raise AssertionError


AT_ONCE = RetryPolicy(quick_attempts=3, quick_pause=0.0)


async def test_the_first_answer_is_the_answer() -> None:
    assert await asked(AT_ONCE, "a bundle") == (1, "a bundle")


async def test_what_may_pass_within_seconds_is_asked_again() -> None:
    assert await asked(AT_ONCE, ServiceFailed(503), ConnectionFailed("reset"), "a bundle") == (3, "a bundle")


async def test_after_the_last_quick_attempt_the_error_itself_comes_out() -> None:
    last = ServiceFailed(504)
    assert await asked(AT_ONCE, ServiceFailed(502), ServiceFailed(503), last, "too late") == (3, last)


@pytest.mark.parametrize("error", [RateLimited(1), AccountRefused(401), BundleTooLarge(1), RuntimeError("ours")])
async def test_what_asking_at_once_cannot_help_is_asked_once(error: Exception) -> None:
    assert await asked(AT_ONCE, error, "never asked for") == (1, error)


async def test_when_the_time_is_up_nobody_asks_again() -> None:
    error = ServiceFailed(503)
    policy = dataclasses.replace(AT_ONCE, quick_attempts=100, quick_seconds=0.0)
    assert await asked(policy, error, "never asked for") == (1, error)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (20, 20.0)])
def test_the_pause_between_quick_attempts_doubles_with_full_jitter_and_ends(attempt: int, longest: float) -> None:
    loop = retry_quickly(RetryPolicy(quick_pause=0.5, quick_seconds=60))
    state = RetryCallState(loop, None, (), {})
    state.attempt_number = attempt
    pauses = [loop.wait(state) for _ in range(200)]
    assert 0 <= min(pauses) < longest / 2 < max(pauses) <= longest


def test_every_error_that_can_stop_an_attempt_has_a_cause_of_letters() -> None:
    families = errors.RetryableError | errors.BlockedError | errors.PermanentError | errors.Forbidden | errors.LeaseLost
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert {kind.cause for kind in kinds if issubclass(kind, families)} == set(CAUSES)
    assert len(CAUSES) < 30
    assert all(cause.replace("_", "").isalpha() for cause in CAUSES)
