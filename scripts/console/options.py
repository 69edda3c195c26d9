"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from scripts.console.parameter_types import OutcomesType

Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(sentence: str = "Print one JSON object instead of a table.") -> Callable[[Function], Function]:
    """Return `--json`, as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=sentence)


def account_option(
    sentence: str = "Account in DOCV_ACCOUNTS; by default the one named default, or the only one.",
) -> Callable[[Function], Function]:
    """Return `--account`."""
    return click.option("--account", metavar="NAME", help=sentence)


def kind_option(sentence: str) -> Callable[[Function], Function]:
    """Return `--kind`, which may be repeated, as the argument ``kinds``."""
    # Imported lazily: commands without this option do not need the code that reads bundles.
    from tasks.bundle.documents import Kind  # noqa: PLC0415

    known = click.Choice([kind.value for kind in Kind])
    return click.option("--kind", "kinds", type=known, multiple=True, help=sentence)


accept_refusals_option = click.option(
    "--accept-refusals",
    is_flag=True,
    help="Do not stop if RiskOS has no documents for the first 200 evaluations, because they are past its retention.",
)
column_option = click.option(
    "--column", help="Name or number of the column, or key (such as a.b.c), with the IDs; detected if unambiguous."
)
excel_option = click.option(
    "--excel", is_flag=True, help="Start the CSV with a byte order mark, so that Excel reads it as UTF-8."
)
even_if_erased_option = click.option(
    "--even-if-erased", is_flag=True, help="Also archive evaluations that earlier privacy requests have erased."
)
refresh_option = click.option(
    "--refresh", is_flag=True, help="Ask RiskOS again about evaluations that are already archived."
)
refresh_outcome_option = click.option(
    "--refresh-outcome",
    "refresh_outcomes",
    type=OutcomesType(),
    metavar="OUTCOME,…",
    default=(),
    help="Ask RiskOS again about evaluations whose manifest has one of these outcomes, such as no_documents,rejected.",
)
with_parent_option = click.option("--with-parent", is_flag=True, hidden=True, help="Exit when standard input ends.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
