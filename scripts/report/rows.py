"""What the archive, and where it is silent the ledger, says of evaluations."""

from collections.abc import AsyncIterator, Sequence

from scripts.archive_access.evaluation_rows import MISSING, Row, archive_rows
from tasks.ledger.ledger import Ledger
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket


async def rows(
    bucket: Bucket, environment: str, ledger: Ledger, eval_ids: Sequence[str]
) -> AsyncIterator[Sequence[Row]]:
    """Yield what became of evaluations, in their order, some at a time.

    Raises:
        StorageError: the archive did not say.
    """
    async for found in archive_rows(bucket, environment, eval_ids):
        yield await _completed(ledger, found)


async def _completed(ledger: Ledger, found: Sequence[Row]) -> Sequence[Row]:
    """Say of those that have no manifest where they are."""
    silent = [row.eval_id for row in found if row.outcome == MISSING and row.cause is None]
    known = dict(zip(silent, await ledger.locate(silent), strict=True))
    return [_placed(row, *known[row.eval_id]) if row.eval_id in known else row for row in found]


def _placed(row: Row, state: str | None, cause: str | None) -> Row:
    outcome = Outcome.FAILED.value if state == "dead" else MISSING
    return Row(row.eval_id, outcome, cause=cause if state == "dead" else state)
