import pytest

from tasks.model.job import Job, Queue, Trigger


@pytest.mark.parametrize(
    ("even_if_erased", "ordered_at", "covers"),
    [
        pytest.param(True, 1_000.1, True, id="erased-before-the-order"),
        pytest.param(True, 1_000.0, False, id="erased-at-the-same-time"),
        pytest.param(True, 999.9, False, id="erased-after-the-order"),
        pytest.param(True, None, True, id="time-of-order-unknown"),
        pytest.param(False, 1_000.1, False, id="usual-order"),
        pytest.param(False, None, False, id="usual-order-without-time"),
    ],
)
def test_covers_erasure_is_true_only_for_erasures_before_the_order(
    *, even_if_erased: bool, ordered_at: float | None, covers: bool
) -> None:
    job = Job(
        "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10",
        "token",
        Queue.LIVE,
        "default",
        refresh=False,
        attempts=0,
        lost=0,
        trigger=Trigger("enqueue"),
        even_if_erased=even_if_erased,
        ordered_at=ordered_at,
    )
    assert job.covers_erasure(1_000.0) is covers
