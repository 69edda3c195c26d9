"""Ask for a bundle when it is our turn, and obey what RiskOS says of the account.

The quick retries live here: each of them waits its turn like any other request.
"""

from dataclasses import dataclass

import aiohttp

from tasks.account import Account
from tasks.download import Answer, Terms, download
from tasks.errors import AccountRefused, RateLimited
from tasks.evaluation import Evaluation
from tasks.hold import Holds
from tasks.ledger import Queue
from tasks.rate_limit import Turns
from tasks.retrying import Policy, quick

_SLOW_DOWNS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """The line to RiskOS: one session, one account, and the rules they keep."""

    http: aiohttp.ClientSession
    account: Account
    turns: Turns
    holds: Holds
    terms: Terms
    policy: Policy


async def request(line: Line, evaluation: Evaluation, queue: Queue) -> Answer:
    """Return RiskOS's answer about an evaluation, after quick retries where they may help.

    Raises:
        TryAgain: it failed also when asked again.
        NotNow: the account has to wait.
        BundleTooLarge: the bundle is larger than it may be.
    """
    async for attempt in quick(line.policy):
        with attempt:
            return await _in_turn(line, evaluation, queue)
    raise AssertionError("the loop ends by returning or raising")


async def _in_turn(line: Line, evaluation: Evaluation, queue: Queue) -> Answer:
    account, wait = line.account, 0.0
    for _ in range(_SLOW_DOWNS):
        probe = await line.turns.wait(account, queue)
        try:
            answer = await download(line.http, evaluation, account, line.terms)
        except RateLimited as error:
            wait = await line.holds.slow_down(account.name, error.wait)
            line.turns.notice(account.name, wait)
        except AccountRefused as error:
            wait = await line.holds.refused(account.name, error.status, probe=probe)
            line.turns.notice(account.name, wait)
            raise AccountRefused(error.status, wait) from None
        else:
            if probe:
                await line.holds.lift(account.name)
                line.turns.notice(account.name, 0.0)
            return answer
    raise RateLimited(wait)
