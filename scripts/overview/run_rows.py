"""Read the outcome of evaluations from the archive, or from the ledger if there is no manifest."""

from collections.abc import AsyncIterator, Sequence

from scripts.archive_access.evaluation_rows import MISSING, EvaluationRow, read_rows
from tasks.ledger.ledger import Ledger
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket


async def report_rows(
    bucket: Bucket, environment: str, ledger: Ledger, eval_ids: Sequence[str], *, is_cancelled: bool = False
) -> AsyncIterator[Sequence[EvaluationRow]]:
    """Yield a row for each evaluation, in order, a batch at a time.

    Args:
        is_cancelled: whether their run was cancelled. Then evaluations that neither the archive nor the ledger knows
            were not requested.

    Raises:
        StorageError: the archive cannot be read.
    """
    async for found in read_rows(bucket, environment, eval_ids):
        silent = [row.eval_id for row in found if row.outcome == MISSING and row.cause is None]
        known = dict(zip(silent, await ledger.locate(silent), strict=True))
        without = Outcome.CANCELLED.value if is_cancelled else MISSING
        yield [_with_state(row, *known[row.eval_id], without) if row.eval_id in known else row for row in found]


def _with_state(row: EvaluationRow, state: str | None, cause: str | None, without: str) -> EvaluationRow:
    """Return the row of an evaluation without a manifest; ``without`` is its outcome if the ledger has none either."""
    if state is None:
        return EvaluationRow(row.eval_id, without)
    outcome = Outcome.FAILED.value if state == "dead" else MISSING
    return EvaluationRow(row.eval_id, outcome, cause=cause if state == "dead" else state)
