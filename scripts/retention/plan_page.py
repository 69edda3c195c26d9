"""The counts of a plan as one HTML file that needs nothing else."""

import importlib.resources
from datetime import date

from jinja2 import Environment, StrictUndefined

from scripts.console.formatting import format_bytes, format_count
from scripts.retention.plan_counts import PlanCounts
from scripts.retention.survey import Survey
from tasks.storage.manifest import archiver, format_utc


def render_plan(counts: PlanCounts, survey: Survey, until: date) -> str:
    """Return the file.

    Args:
        counts: the counts.
        survey: says which archive was counted, and when.
        until: the day of the plan.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": format_bytes, "count": "{:,}".format, "counted": format_count}
    template = environment.from_string(
        importlib.resources.files("scripts.retention").joinpath("plan.html.j2").read_text("utf-8")
    )
    made_at = format_utc(survey.now.timestamp())
    return template.render(counts=counts, survey=survey, until=until, made_at=made_at, archiver=archiver())
