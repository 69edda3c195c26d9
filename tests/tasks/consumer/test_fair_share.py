"""A slow account leaves room to a fast one, and one alone has most of it."""

from contextlib import ExitStack

import pytest

from tasks.consumer.fair_share import FairShare
from tasks.model.job import Queue


def fill(shares: FairShare, account: str, stack: ExitStack, queue: Queue = Queue.BACKFILL) -> int:
    """Take places for an account until it gets no more; return how many those are."""
    count = 0
    while count < 1_000 and shares.can_start(account, queue):
        stack.enter_context(shares.slot(account))
        count += 1
    return count


def test_who_is_alone_in_a_process_shares_nothing() -> None:
    shares = FairShare(8, accounts=1)
    with ExitStack() as stack:
        assert fill(shares, "default", stack) == 1_000
        assert shares.fetch_limit("default") == 1_000


@pytest.mark.parametrize("concurrency", [2, 8, 64, 1024])
def test_a_slow_account_has_most_of_the_places_and_never_all(concurrency: int) -> None:
    shares = FairShare(concurrency, accounts=2)
    with ExitStack() as stack:
        assert concurrency / 2 <= fill(shares, "slow", stack) < concurrency
        assert fill(shares, "fast", stack) >= 1


def test_what_is_live_finds_room_beside_a_backfill_of_the_same_account() -> None:
    shares = FairShare(64, accounts=2)
    with ExitStack() as stack:
        fill(shares, "default", stack)
        assert fill(shares, "default", stack, Queue.LIVE) >= 8


def test_as_many_are_fetched_as_are_worked_off_and_never_none() -> None:
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
