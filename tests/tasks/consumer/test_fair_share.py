"""How the accounts of a process share its slots."""

from contextlib import ExitStack

import pytest

from tasks.consumer.fair_share import FairShare
from tasks.model.job import Queue


def fill(shares: FairShare, account: str, stack: ExitStack, queue: Queue = Queue.BACKFILL) -> int:
    """Give an account slots until it gets no more; return how many it got."""
    count = 0
    while count < 1_000 and shares.can_start(account, queue):
        stack.enter_context(shares.slot(account))
        count += 1
    return count


def test_a_single_account_is_not_limited() -> None:
    shares = FairShare(8, accounts=1)
    with ExitStack() as stack:
        assert fill(shares, "default", stack) == 1_000
        assert shares.fetch_limit("default") == 1_000


@pytest.mark.parametrize("concurrency", [2, 8, 64, 1024])
def test_a_slow_account_gets_most_of_the_slots_but_never_all(concurrency: int) -> None:
    shares = FairShare(concurrency, accounts=2)
    with ExitStack() as stack:
        assert concurrency / 2 <= fill(shares, "slow", stack) < concurrency
        assert fill(shares, "fast", stack) >= 1


def test_live_evaluations_get_slots_when_a_backfill_of_the_same_account_has_its_share() -> None:
    shares = FairShare(64, accounts=2)
    with ExitStack() as stack:
        fill(shares, "default", stack)
        assert fill(shares, "default", stack, Queue.LIVE) >= 8


def test_fetch_limit_follows_the_evaluations_that_ended_and_is_at_least_one() -> None:
    shares = FairShare(64, accounts=2)
    assert 20 < shares.fetch_limit("default") < 64
    with ExitStack() as stack:
        fill(shares, "default", stack)
        assert shares.fetch_limit("default") == 1
    assert shares.fetch_limit("default") > 2 * 40
    for _ in range(5_000):
        with shares.slot("default"):
            pass
    assert shares.fetch_limit("default") == 1_000
