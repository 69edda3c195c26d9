"""The segments of a run's bar are adjacent."""

from hypothesis import given
from hypothesis import strategies as st

from scripts.serve.page.run_bar import WIDTH, bar_segments
from tasks.ledger.counters import RunCounters
from tasks.model.outcome import Outcome


@given(st.dictionaries(st.sampled_from(Outcome), st.integers(0, 10**7)), st.integers(0, 10**7))
def test_segments_are_adjacent_and_as_wide_as_their_share(outcomes: dict[Outcome, int], pending: int) -> None:
    total = sum(outcomes.values()) + pending
    parts = list(bar_segments(RunCounters(total=total, outcomes=outcomes)))
    end = 0.0
    for part in parts:
        assert abs(part.start - end) <= 0.02
        end = part.start + part.width
    assert {part.outcome: part.count for part in parts} == {name.value: n for name, n in outcomes.items() if n}
    assert not total or abs(end - WIDTH * (total - pending) / total) <= 0.1
