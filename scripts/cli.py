"""The command: one line of help per verb; everything is imported when its verb is used.

Exit codes: 0 all as asked, 1 some evaluation is not, 2 usage or settings, 3 a needed service cannot be reached,
130 interrupted. Data goes to standard output, progress and logs to standard error.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_QUEUES = ("live", "backfill")
_PERCENT = 100
_KINDS = ("document_front", "document_back", "selfie", "attachment", "other")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class RateType(click.FloatRange):
    """Requests a second; a figure that is none is refused, which its parent would let through."""

    name = "rate"

    def __init__(self) -> None:
        super().__init__(0, 10_000, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the requests a second."""
        number: float = super().convert(value, param, ctx)
        if number != number:  # noqa: PLR0124  # that is how one knows it
            self.fail(f"{value!r} is no rate", param, ctx)
        return number


class DurationType(click.ParamType[float]):
    """A time such as ``90s``, ``30m``, ``2h`` or ``7d``, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isascii() or not number.isdigit() or unit not in _UNITS:
            self.fail(f"{value!r} is no time; expected is a number and s, m, h or d, such as 2h", param, ctx)
        return float(int(number) * _UNITS[unit])


class ShareType(click.ParamType[float]):
    """A part of all, such as ``5%``, as a figure from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the part."""
        if isinstance(value, float):
            return value
        number, percent = str(value)[:-1], str(value)[-1:]
        if percent != "%" or not number.replace(".", "", 1).isdigit() or not 0 < float(number) <= _PERCENT:
            self.fail(f"{value!r} is no part of all; expected is a percentage such as 5%", param, ctx)
        return float(number) / _PERCENT


class Command(click.Group):
    """The group of all verbs: turns what went wrong into a sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                # Whoever reads this may have had enough. click ends quietly then; the interpreter would not.
                sys.stdout.flush()
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            from scripts.console.error_messages import explain  # noqa: PLC0415  # most commands end well

            explained = explain(error)
            if explained is None:
                raise
            sentence, code = explained
            click.echo(f"docv-archive: {sentence}", err=True)
            ctx.exit(code)


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="docv-archive")
def main() -> None:
    """Carry the images of DocV evaluations from RiskOS into an archive of your own, and prove it.

    Settings are environment variables DOCV_..., also read from .env; README.md lists them.
    """


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")(command)


def _even_if_erased_option(command: Callable[..., Any]) -> Callable[..., Any]:
    sentence = "Also archive again what was erased by a privacy request."
    return click.option("--even-if-erased", is_flag=True, help=sentence)(command)


def _account_option(command: Callable[..., Any]) -> Callable[..., Any]:
    sentence = "Account of DOCV_ACCOUNTS; default, or the only one, where none is named."
    return click.option("--account", metavar="NAME", help=sentence)(command)


def _with_parent_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input does.")(command)


@main.command()
@click.option("--count", type=click.IntRange(100, 5000), default=300, show_default=True, help="Evaluations.")
@click.option("--to", "folder", default="demo-archive", show_default=True, help="Folder of the demo's archive.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Also draw what you see into this SVG file.")
@_json_option
def demo(count: int, folder: str, picture: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Show the main job: no key, no server, no Docker.

    Starts a RiskOS of its own, an embedded Redis and a worker, and archives evaluations of every sort.
    """
    from scripts.commands.demo import demo as show  # noqa: PLC0415

    raise SystemExit(show(count, folder, picture, as_json=as_json))


@main.command()
@click.argument("sources", metavar="FILE|ID...", nargs=-1, required=True)
@click.option("--refresh", is_flag=True, help="Ask RiskOS again about what is archived already.")
@_even_if_erased_option
@_account_option
@_json_option
def run(sources: tuple[str, ...], **how: Any) -> None:
    """Archive evaluations, on this machine, now.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input. Workers are
    included, and Redis, too, unless DOCV_REDIS_URL names one. Stop it at any time: the same command goes on where it
    was.
    """
    from scripts.commands.run import run as do_it  # noqa: PLC0415

    raise SystemExit(do_it(sources, **how))


@main.command()
@click.option("--queues", default="live,backfill", show_default=True, help="Queues to serve.")
@_with_parent_option
def worker(queues: str, with_parent: bool) -> None:  # noqa: FBT001
    """Serve the queues until told to stop; as many of these as you like share one Redis."""
    names = queues.split(",")
    if not set(names) <= set(_QUEUES):
        raise click.BadParameter(f"the queues are {' and '.join(_QUEUES)}", param_hint="--queues")
    from scripts.commands.worker import serve_queues  # noqa: PLC0415

    serve_queues(names, with_parent=with_parent)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--read-only", is_flag=True, help="Let nobody act on the operations page.")
def serve(host: str, port: int, read_only: bool) -> None:  # noqa: FBT001
    """Take events of RiskOS and IDs over HTTP, and show the operations page, until told to stop.

    Plain HTTP: TLS is the matter of the proxy in front. DOCV_WEBHOOK_SECRETS, DOCV_INTAKE_TOKENS, DOCV_OPERATORS and
    DOCV_VIEWERS say who may come in; without them nobody may. docs/producers.md is the contract for programs.
    """
    from scripts.serve.server import serve as open_doors  # noqa: PLC0415

    open_doors(host, port, lambda url: click.echo(f"docv-archive listens at {url}"), read_only=read_only)


@main.command()
@click.argument("sources", metavar="FILE|ID...", nargs=-1, required=True)
@click.option("--queue", type=click.Choice(_QUEUES), default="live", show_default=True, help="How urgent they are.")
@click.option("--run", "run_name", help="Name to count them under; see `status NAME`.")
@click.option("--refresh", is_flag=True, help="Ask RiskOS again about what is archived already.")
@click.option("--settle", is_flag=True, help="They have just been completed: wait DOCV_SETTLE_SECONDS first.")
@_even_if_erased_option
@_account_option
@_json_option
def enqueue(sources: tuple[str, ...], run_name: str | None, **how: Any) -> None:
    """Put evaluations on a queue; workers archive them.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input.
    """
    from scripts.commands.enqueue import enqueue as put  # noqa: PLC0415

    raise SystemExit(put(sources, run=run_name, **how))


@main.command()
@click.argument("source", metavar="FILE")
@click.option("--run", help="Name of the run; by default made of the file's name and its IDs.")
@click.option("--column", help="Name or number of the column, or key, with the IDs; found out where it can be.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="Only so many, the first ones.")
@click.option("--sample", type=click.IntRange(1, 1_000_000), help="Only so many, by chance; always the same.")
@click.option("--refresh", is_flag=True, help="Ask RiskOS again about what is archived already.")
@_even_if_erased_option
@click.option("--strict", is_flag=True, help="Queue nothing when a line is bad.")
@click.option("--rejects", type=click.Path(dir_okay=False, path_type=Path), help="File for the bad lines.")
@click.option("--dry-run", is_flag=True, help="Only say what it would mean: requests, hours, PUTs, bytes.")
@click.option("--detach", is_flag=True, help="Do not wait: leave it to the workers.")
@_account_option
@_json_option
def backfill(dry_run: bool, detach: bool, as_json: bool, **wanted: Any) -> None:  # noqa: FBT001
    """Archive a whole list: a named run, safe to stop and to start again.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input; s3://bucket/key works, too. Workers
    archive them, as many at a time as Redis is to hold (DOCV_BACKLOG). Stop anything at any time: the same command
    goes on where it was.
    """
    from scripts.commands.backfill import BackfillOptions  # noqa: PLC0415
    from scripts.commands.backfill import backfill as carry  # noqa: PLC0415

    raise SystemExit(carry(BackfillOptions(**wanted), dry_run=dry_run, detach=detach, as_json=as_json))


@main.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@_json_option
def status(run_name: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Show queues, holds, runs and dead letters, or the counters of one RUN."""
    from scripts.commands.status import status as show  # noqa: PLC0415

    raise SystemExit(show(run_name, as_json=as_json))


@main.command()
@click.argument("run_name", metavar="RUN")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one page of HTML into this file.")
@_account_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of CSV.")
def report(run_name: str, html: Path | None, account: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Tell what became of every evaluation of a backfill, asked of the archive."""
    from scripts.report.command import report as tell  # noqa: PLC0415

    raise SystemExit(tell(run_name, html, account, as_json=as_json))


@main.command()
@click.argument("source", metavar="FILE")
@click.option("--column", help="Name or number of the column, or key, with the IDs; found out where it can be.")
@click.option("--inventory", metavar="FILE", help="Look into this S3 Inventory report instead of asking for each ID.")
@_account_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of CSV.")
def audit(source: str, column: str | None, inventory: str | None, account: str | None, *, as_json: bool) -> None:
    """Ask the archive, not the logs: for each ID its outcome, or `missing`.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input; s3://bucket/key works, too. Neither
    Redis nor RiskOS is needed. Exit code 1 says that something is missing or damaged, or that a line names no
    evaluation.

    --inventory takes the manifest.json of a report (CSV or Parquet; its data files in the same place), or one data
    file, here or in S3. Then no manifest is read: the outcome is `present` or `missing`, as of the report, and
    documents and bytes are counted from the keys, superseded documents included.
    """
    from scripts.audit.command import audit as ask  # noqa: PLC0415

    raise SystemExit(ask(source, column, inventory, account, as_json=as_json))


@main.command()
@click.argument("source", metavar="[FILE]", required=False)
@click.option("--column", help="Name or number of the column, or key, with the IDs; found out where it can be.")
@click.option(
    "--sample", type=ShareType(), default=1.0, help="Only a part of all evaluations, such as 5%; always the same."
)
@click.option(
    "--since",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Only what was archived then or later (UTC).",
)
@click.option("--checksums-only", is_flag=True, help="Compare S3's own SHA-256; read only what has none of the whole.")
@click.option("--sizes-only", is_flag=True, help="Compare what is listed; read no document.")
@click.option("--grace", type=click.IntRange(0), default=3600, show_default=True, help="Seconds: younger is no orphan.")
@_account_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of CSV.")
def verify(
    source: str | None,
    checksums_only: bool,  # noqa: FBT001
    sizes_only: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    **asked: Any,
) -> None:
    """Read the archive back and compare it with its manifests; print every difference, change nothing.

    All of it, or only the evaluations that FILE names. Workers may go on meanwhile. Exit code 1 says that there is a
    difference; the word for it is one of a closed set, docs/design.md has them.
    """
    if asked["account"] and source is None:
        raise click.UsageError("--account says where the evaluations of FILE are; without FILE all of it is verified")
    if checksums_only and sizes_only:
        raise click.UsageError("give --checksums-only or --sizes-only, not both")
    from scripts.verify.command import make_options  # noqa: PLC0415
    from scripts.verify.command import verify as compare  # noqa: PLC0415

    wanted = make_options(source, checksums_only=checksums_only, sizes_only=sizes_only, **asked)
    raise SystemExit(compare(wanted, as_json=as_json))


@main.command()
@click.argument("sources", metavar="FILE|ID...", nargs=-1)
@click.option("--ids", metavar="FILE", multiple=True, help="File with IDs, in the formats of `backfill`.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder to make; a ZIP where it ends in .zip.")
@click.option("--zip", "packed", type=click.Path(path_type=Path), help="ZIP to make.")
@click.option("--bag", is_flag=True, help="Make it a BagIt bag (RFC 8493).")
@click.option("--kind", "kinds", type=click.Choice(_KINDS), multiple=True, help="Only such documents.")
@click.option("--revision", type=click.IntRange(1), help="The documents of a former revision.")
@click.option("--superseded", is_flag=True, help="Also those that the bundle has lost since.")
@_account_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each evaluation.")
def export(
    sources: tuple[str, ...],
    ids: tuple[str, ...],
    folder: Path | None,
    packed: Path | None,
    account: str | None,
    *,
    bag: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Bring documents back out of the archive, each checked on its way.

    Each evaluation gets a folder with its documents, its manifest.json and names.csv. All of it is there in the end, or
    nothing of it; what is there already is never written over. Needs neither Redis nor an API key.
    """
    target = packed or folder
    if target is None or (packed and folder):
        raise click.UsageError("say where to: --to DIR or --zip FILE.zip, one of them")
    if not sources + ids:
        raise click.UsageError("name evaluations: IDs, or a file with --ids")
    from scripts.export.command import ExportOptions  # noqa: PLC0415
    from scripts.export.command import export as bring  # noqa: PLC0415
    from scripts.export.copying import DocumentSelection  # noqa: PLC0415

    chosen["kinds"] = frozenset(chosen["kinds"])
    wanted = ExportOptions(
        target, packed=target.suffix.lower() == ".zip" or bool(packed), bag=bag, selection=DocumentSelection(**chosen)
    )
    raise SystemExit(bring(sources + ids, wanted, account, as_json=as_json))


@main.command()
@click.option("--reason", required=True, help="Why; `status` shows it to whoever wonders.")
@_account_option
@_json_option
def hold(reason: str, account: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Stop sending requests until `resume`; nothing is lost meanwhile."""
    from scripts.commands.hold import hold as place  # noqa: PLC0415

    raise SystemExit(place(reason, account, as_json=as_json))


@main.command()
@click.option("--account", metavar="NAME", help="Only those of this account and its backfill.")
@_json_option
def resume(account: str | None, as_json: bool) -> None:  # noqa: FBT001
    """End every hold, whoever placed it: a person, a refused key, an outage."""
    from scripts.commands.hold import resume as lift  # noqa: PLC0415

    raise SystemExit(lift(account, as_json=as_json))


@main.command()
@click.argument("asked", metavar="[RATE]", required=False, type=RateType())
@click.option("--from-settings", is_flag=True, help="Go back to the rate of the settings.")
@_account_option
@_json_option
def rate(asked: float | None, from_settings: bool, account: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Show the rate, or set it to RATE requests a second, for all workers and at once."""
    if from_settings and asked is not None:
        raise click.UsageError("give a rate or --from-settings, not both")
    from scripts.commands.rate import rate as steer  # noqa: PLC0415

    raise SystemExit(steer(asked, account, reset=from_settings, as_json=as_json))


@main.group("dead-letters")
def dead_letters() -> None:
    """Evaluations that were tried enough: list them, try them anew, drop them."""


def _choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.argument("eval_ids", metavar="[ID]...", nargs=-1),
        click.option("--cause", help="Only those with this cause, such as service_failed."),
        click.option("--run", "run_name", help="Only those of this run."),
        click.option("--account", metavar="NAME", help="Only those of this account."),
        click.option(
            "--older-than",
            type=DurationType(),
            default="0s",
            help="Only those that last failed so long ago, such as 2h.",
        ),
        _json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@dead_letters.command("list")
@_choice_options
def list_dead_letters(as_json: bool, **chosen: Any) -> None:  # noqa: FBT001
    """Show them, with the cause of each."""
    from scripts.commands.dead_letters import list_dead_letters, make_filter  # noqa: PLC0415

    raise SystemExit(list_dead_letters(make_filter(**chosen), as_json=as_json))


@dead_letters.command()
@_choice_options
def redrive(as_json: bool, **chosen: Any) -> None:  # noqa: FBT001
    """Try them anew, with all their attempts."""
    from scripts.commands.dead_letters import make_filter  # noqa: PLC0415
    from scripts.commands.dead_letters import redrive as again  # noqa: PLC0415

    raise SystemExit(again(make_filter(**chosen), as_json=as_json))


@dead_letters.command()
@_choice_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(yes: bool, as_json: bool, **chosen: Any) -> None:  # noqa: FBT001
    """Forget them: nothing will archive them any more."""
    from scripts.commands.dead_letters import drop as forget  # noqa: PLC0415
    from scripts.commands.dead_letters import make_filter  # noqa: PLC0415

    raise SystemExit(forget(make_filter(**chosen), yes=yes, as_json=as_json))


@main.command()
@click.argument("eval_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; it stands in the receipt. No personal data.")
@click.option("--by", help="Who asks for it; by default the login name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--bypass-governance", is_flag=True, help="Remove also what a GOVERNANCE retention keeps.")
@_account_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def erase(eval_ids: tuple[str, ...], **how: Any) -> None:
    """Erase evaluations for good: a privacy request.

    Documents, manifests and all their versions go, and their traces in Redis; a receipt stays in the archive. They are
    not archived again, unless --even-if-erased says so. Cut off, the same command goes on where it was.
    """
    from scripts.erase.command import erase as remove  # noqa: PLC0415

    raise SystemExit(remove(eval_ids, **how))


@main.command("legal-hold")
@click.argument("eval_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--on/--off", "on", required=True, default=None, help="Begin or end it.")
@_account_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def legal_hold(eval_ids: tuple[str, ...], account: str | None, on: bool, as_json: bool) -> None:  # noqa: FBT001
    """Put evaluations under legal hold, or end it: nobody can remove what is under hold.

    It needs a bucket with Object Lock.
    """
    from scripts.erase.legal_hold import legal_hold as place  # noqa: PLC0415

    raise SystemExit(place(eval_ids, account, on=on, as_json=as_json))


@main.command()
@_json_option
def doctor(as_json: bool) -> None:  # noqa: FBT001
    """Examine this installation: what is wrong, and how to mend it."""
    from scripts.doctor.command import doctor as examine  # noqa: PLC0415

    raise SystemExit(examine(as_json=as_json))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True, help="0 takes a free one.")
@click.option(
    "--key",
    default=("simulated-key",),
    show_default=True,
    multiple=True,
    help="API key it accepts; each is an account.",
)
@click.option("--one-rate", is_flag=True, help="Let all keys share rate and quota.")
@click.option("--rate", type=click.IntRange(0), help="Requests a second it grants; 0 is a key not activated yet.")
@click.option("--quota", type=click.IntRange(0), help="Requests a day it grants.")
@click.option("--header-style", type=click.Choice(("none", "standard", "x")), default="standard", show_default=True)
@click.option("--latency-ms", type=click.FloatRange(0), default=0, show_default=True)
@click.option("--jitter-ms", type=click.FloatRange(0), default=0, show_default=True)
@click.option("--image-bytes", type=click.IntRange(1_000, 20_000_000), help="About the size of each JPEG.")
@click.option("--refuse-with", type=click.IntRange(400, 599), help="Answer every request with this status.")
@click.option("--ids", type=click.IntRange(1, 1_000_000), help="Print so many IDs of every sort, and end.")
@_with_parent_option
def simulate(ids: int | None, **options: Any) -> None:
    """Be a RiskOS, for rehearsals: every answer and fault, chosen by the evaluation's ID.

    `docv-archive simulate --ids 300 > ids.txt` prints IDs of every sort to rehearse with.
    """
    from scripts.commands.simulate import print_ids, simulate  # noqa: PLC0415

    if ids is not None:
        print_ids(ids)
    else:
        simulate(**options)


if __name__ == "__main__":
    main()
