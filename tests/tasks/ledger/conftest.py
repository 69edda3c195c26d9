"""The ledger of a test, in its own Redis."""

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)
