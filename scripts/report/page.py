"""A report as one page of HTML that needs nothing else: no script, no font, no address."""

import importlib.resources

from jinja2 import Environment, StrictUndefined

from scripts.archive_access.evaluation_rows import ERASED, MISSING
from scripts.console.formatting import format_bytes
from scripts.console.summary import MEANINGS, REASONS
from scripts.report.totals import ReportTotals
from tasks.storage.run_list import RunList


def render_page(run: RunList, totals: ReportTotals, made_at: str) -> str:
    """Return the page.

    Args:
        run: what was reported of.
        totals: its figures.
        made_at: when, as manifests write times.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": format_bytes, "count": "{:,}".format}
    template = environment.from_string(
        importlib.resources.files("scripts.report").joinpath("page.html.j2").read_text("utf-8")
    )
    meanings = [(outcome.value, totals.outcomes[outcome.value], meaning) for outcome, meaning in MEANINGS.items()]
    meanings += [
        (ERASED, totals.outcomes[ERASED], "erased for a privacy request; the receipt is kept"),
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
    )
