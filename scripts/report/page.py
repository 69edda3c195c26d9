"""A report as one HTML file that needs nothing else: no script, no font, no URL."""

import importlib.resources

from jinja2 import Environment, StrictUndefined

from scripts.archive_access.evaluation_rows import DISPOSED, ERASED, MISSING
from scripts.console.formatting import format_bytes, format_count
from scripts.console.summary import MEANINGS, REASONS
from scripts.report.kept_columns import KeptCells
from scripts.report.totals import ReportTotals
from tasks.storage.run_list import RunList

_ROWS = 50
"""Rows that are shown together; links lead to the next ones."""


def render_page(run: RunList, totals: ReportTotals, made_at: str, cells: KeptCells | None = None) -> str:
    """Return the file.

    Args:
        run: the list of the run.
        totals: its totals.
        made_at: when the report was made, in the format of manifests.
        cells: columns of the customer's own file, for the rows that need attention.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": format_bytes, "count": "{:,}".format, "counted": format_count}
    template = environment.from_string(
        importlib.resources.files("scripts.report").joinpath("page.html.j2").read_text("utf-8")
    )
    meanings = [(outcome.value, totals.outcomes[outcome.value], meaning) for outcome, meaning in MEANINGS.items()]
    meanings += [
        (ERASED, totals.outcomes[ERASED], "erased for a privacy request; the receipt is kept"),
        (DISPOSED, totals.outcomes[DISPOSED], "a rule of the retention schedule disposed of all documents"),
        (MISSING, totals.outcomes[MISSING], "no manifest, and no dead letter"),
    ]
    reasons = [(reason.value, totals.reasons[reason.value], meaning) for reason, meaning in REASONS.items()]
    return template.render(
        run=run,
        totals=totals,
        bars=totals.bars(),
        meanings=meanings,
        reasons=reasons if totals.reasons else (),
        made_at=made_at,
        pages=[totals.named[start : start + _ROWS] for start in range(0, len(totals.named), _ROWS)],
        kept_names=cells.names if cells else (),
        kept=cells.get if cells else None,
    )
