"""Bring one leased evaluation a step further: run, decide, write it into the ledger, tell.

Whatever an attempt ends with, the ledger knows it before anyone else is told.
"""

import time

from tasks import report
from tasks.errors import LeaseLost
from tasks.ledger import Entry, Ledger
from tasks.pipeline import Means, archive
from tasks.retrying import Again, AwaitAccount, GiveUp, Policy, cause_of, check_worn_out, decide


async def attempt(entry: Entry, means: Means, ledger: Ledger) -> None:
    """Make one attempt at an evaluation and record what came of it.

    Only what must stop the whole process gets out of here: cancellation, and a ledger that cannot be reached.
    Then the lease runs out by itself, and the evaluation is due again.
    """
    policy = means.line.policy
    started = time.monotonic()
    try:
        check_worn_out(entry, policy)
        outcome = await archive(entry, means)
    except Exception as error:  # noqa: BLE001  # nothing that goes wrong with one evaluation may stop the others
        await _record_failure(error, entry, ledger, policy)
    else:
        try:
            await ledger.settle(entry, outcome)
        except LeaseLost:
            report.lease_lost(entry)
        else:
            report.ended(entry, outcome, time.monotonic() - started)


async def _record_failure(error: Exception, entry: Entry, ledger: Ledger, policy: Policy) -> None:
    verdict = decide(error, entry, policy)
    try:
        match verdict:
            case Again():
                await ledger.park(entry, wait=verdict.wait, attempts=verdict.attempts, cause=cause_of(error))
                report.parked(entry, error, verdict)
            case AwaitAccount():
                await ledger.await_account(entry, cause=cause_of(error))
                report.waits(entry, error)
            case GiveUp():
                await ledger.bury(entry, attempts=verdict.attempts, cause=cause_of(error))
                report.gave_up(entry, error, verdict)
    except LeaseLost:
        report.lease_lost(entry)
