"""Find messages of Celery producers in Redis lists that no worker reads, because the queue or key prefix is wrong."""

from collections import Counter
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from tasks.model.job import Queue

_TASK = "docv.archive"
_PREFIX = "docv:"
_QUEUES = frozenset(queue.value for queue in Queue)
# kombu 5.7 writes it between the name of a queue and a priority (kombu.transport.redis.Channel.sep).
_SEPARATOR = "\x06\x16"
_CALLS, _KEYS = 20, 1_000
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class UnreadMessages:
    """Messages that no worker reads.

    Attributes:
        key: key of the list, without its priority.
        count: number of messages.
        fix: what to change.
    """

    key: str
    count: int
    fix: str


async def find_unread_messages(redis: "Redis", *, is_broker: bool) -> list[UnreadMessages]:
    """Return the messages for our task in lists that no worker reads. The search covers about 20,000 keys.

    Args:
        is_broker: whether workers take messages from this Redis; if not, they take them from RabbitMQ.
    """
    counts: Counter[str] = Counter()
    cursor = 0
    for _ in range(_CALLS):
        cursor, keys = await redis.scan(cursor, count=_KEYS, _type="list")
        for key in map(str, keys):
            name = key.partition(_SEPARATOR)[0]
            if not (is_broker and name.removeprefix(_PREFIX) in _QUEUES and name.startswith(_PREFIX)):
                counts[name] += await _count_messages(redis, key)
        if not cursor:
            break
    return [
        UnreadMessages(ascii(name)[1:-1][:_LONGEST_NAME], count, _describe_fix(name, is_broker=is_broker))
        for name, count in sorted(counts.items())
        if count
    ]


async def _count_messages(redis: "Redis", key: str) -> int:
    """Return the number of messages in a list; 0 if neither its first nor its last one is for our task."""
    try:
        ends = [*await redis.lrange(key, 0, 0), *await redis.lrange(key, -1, -1)]
        return int(await redis.llen(key)) if any(_TASK in str(message) for message in ends) else 0
    except NoPermissionError:
        return 0  # the ACL in docs/planning.md#login-of-redis denies keys without our prefix


def _describe_fix(name: str, *, is_broker: bool) -> str:
    if not is_broker:
        change = "publish to the RabbitMQ of DOCV_BROKER_URL"
    else:
        forgotten = [] if name.startswith(_PREFIX) else [f'the key prefix (global_keyprefix="{_PREFIX}")']
        if name.removeprefix(_PREFIX) not in _QUEUES:
            forgotten.append('queue="live" or queue="backfill"')
        change = f"set {' and '.join(forgotten)} in the producer"
    return f"{change}, see docs/producers.md#celery; then send them again, and delete the list"
