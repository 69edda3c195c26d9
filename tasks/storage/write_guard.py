"""Guard each write of an attempt: this worker must still have the lease, and the write must not take too long.

The guard is checked where bytes are sent to the archive, so that every write is checked: objects, parts of large
objects, former manifests, and bundles in quarantine.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar

from tasks.errors import LeaseLost


class WriteGuard:
    """The guard of one attempt.

    Args:
        confirm: raises LeaseLost if this worker no longer has the lease.
        is_fresh: returns whether the lease cannot have expired yet, without a request to the ledger.
        seconds: time limit of one upload.

    Attributes:
        keys: keys of all objects that the attempt began to write.
    """

    def __init__(self, confirm: Callable[[], Awaitable[None]], is_fresh: Callable[[], bool], seconds: float) -> None:
        self.confirm, self.is_fresh, self.seconds = confirm, is_fresh, seconds
        self.keys: set[str] = set()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Guard every write of this task, and of the tasks that it starts, for as long as the block lasts."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)


_active: ContextVar[WriteGuard | None] = ContextVar("write_guard", default=None)


@contextlib.asynccontextmanager
async def guarded_write(key: str, *, limited: bool = True) -> AsyncIterator[None]:
    """Confirm that the attempt may still write an object, and cancel the block if the write takes too long.

    Args:
        key: key of the object.
        limited: whether the time is limited; a thread that writes to a disk cannot be stopped.

    Raises:
        LeaseLost: this worker no longer has the lease.
        TimeoutError: the write took longer than the time limit of one upload.
    """
    guard = _active.get()
    if guard is None:
        yield
        return
    await guard.confirm()
    guard.keys.add(key)
    async with asyncio.timeout(guard.seconds if limited else None):
        yield


def confirmation() -> Callable[[], Awaitable[None]]:
    """Return the function that confirms the lease of the attempt, for a task that is started elsewhere."""
    guard = _active.get()
    return guard.confirm if guard else _confirm_nothing


def check_fresh() -> None:
    """Check that the lease has not expired while this process was suspended.

    A thread calls this right before its write takes effect.

    Raises:
        LeaseLost: the lease may have expired.
    """
    guard = _active.get()
    if guard and not guard.is_fresh():
        raise LeaseLost


async def _confirm_nothing() -> None:
    """Confirm nothing, because no attempt is guarded."""
