"""What stops an attempt is counted under words that are known beforehand."""

import inspect

from tasks import errors
from tasks.telemetry.metrics import CAUSES


def test_every_error_that_can_stop_an_attempt_has_its_word() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    stopping = {
        kind.cause
        for kind in kinds
        if issubclass(kind, errors.RetryableError | errors.BlockedError | errors.PermanentError | errors.LeaseLost)
    }
    assert stopping == set(CAUSES)
    assert len(CAUSES) < 30
    assert all(cause.replace("_", "").isalpha() for cause in CAUSES)
