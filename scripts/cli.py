"""The table of commands. They print data to standard output, and progress and logs to standard error."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from scripts.console.lazy_group import LazyGroup

_ARGUMENTS = "docv.arguments"
_HELP = frozenset(("-h", "--help", "--version"))


class CommandLine(LazyGroup):
    """The group of all commands: turns return values and errors into exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments for the access log."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command with a umask under which only its user can read the files it writes."""
        os.umask(0o077)
        try:
            with _logged(ctx.meta[_ARGUMENTS]) as logged:
                try:
                    code = super().invoke(ctx)
                finally:
                    # Flushed here: click exits quietly if standard output is closed, but the interpreter's flush at
                    # exit prints an error.
                    sys.stdout.flush()
                logged["exit_code"] = code or 0
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            from scripts.console.error_messages import explain  # noqa: PLC0415  # loads Redis and kombu

            if (explained := explain(error)) is None:
                raise
            sentence, code = explained
            click.echo(f"docv-archive: {sentence}", err=True)
        ctx.exit(code)


_COMMANDS = {
    "audit": ("scripts.audit.command:audit", "Check that each ID of a list is in the archive."),
    "backfill": ("scripts.commands.backfill:backfill", "Archive a whole list as a named run; safe to restart."),
    "cancel": ("scripts.commands.cancel:cancel", "Cancel a run, or evaluations that are waiting."),
    "demo": ("scripts.commands.demo:demo", "Try the archiver without a key, server or Docker."),
    "doctor": ("scripts.doctor.command:doctor", "Check the installation, and say how to fix it."),
    "enqueue": ("scripts.commands.enqueue:enqueue", "Put evaluations on a queue; workers archive them."),
    "erase": ("scripts.erase.command:erase", "Erase evaluations for good: a privacy request."),
    "export": ("scripts.export.command:export", "Copy documents out of the archive and check them."),
    "hold": ("scripts.commands.hold:hold", "Stop sending requests until `resume`."),
    "rate": ("scripts.commands.rate:rate", "Show or set the requests per second of all workers."),
    "report": ("scripts.report.command:report", "List the outcome of every evaluation of a run."),
    "resume": ("scripts.commands.hold:resume", "End the holds of accounts and of the archive."),
    "run": ("scripts.commands.run:run", "Archive evaluations now, on this machine."),
    "serve": ("scripts.serve.server:serve", "Take webhooks and IDs over HTTP; operations page."),
    "settings": ("scripts.commands.settings:settings", "Show the effective settings and their sources."),
    "show": ("scripts.commands.show:show", "Show where an evaluation is, and what is archived."),
    "simulate": ("scripts.commands.simulate:simulate", "Simulate RiskOS and its faults, for rehearsals."),
    "status": ("scripts.commands.status:status", "Show queues, holds, runs and dead letters."),
    "verify": ("scripts.verify.command:verify", "Read the archive back and print every difference."),
    "worker": ("scripts.commands.worker:worker", "Archive evaluations from the queues until stopped."),
}
"""Module and function of each command, and its line in `--help`: at most 55 characters, to fit in 80 columns."""
_SECTIONS = {
    "Archive": ("run", "backfill", "enqueue", "worker", "serve"),
    "Inspect": ("status", "show", "report", "dead-letters", "quarantine"),
    "Control": ("hold", "resume", "rate", "cancel"),
    "Verify, export, erase": ("audit", "verify", "export", "erase", "legal-hold", "retention"),
    "Try out and set up": ("demo", "doctor", "settings", "simulate"),
}
_DEAD_LETTERS = {
    "drop": ("scripts.commands.dead_letters:drop", "Drop dead letters; they are not tried again."),
    "list": ("scripts.commands.dead_letters:list_dead_letters", "List dead letters, each with its cause."),
    "redrive": ("scripts.commands.dead_letters:redrive", "Try dead letters again, with all attempts."),
}
_LEGAL_HOLD = {
    "add": ("scripts.legal_hold.add_command:add", "Put evaluations under a matter."),
    "create": ("scripts.legal_hold.create_command:create", "Create a matter."),
    "list": ("scripts.legal_hold.list_command:list_holds", "Show all matters, released ones included."),
    "release": ("scripts.legal_hold.release_command:release", "Release every evaluation of a matter."),
    "show": ("scripts.legal_hold.show_command:show", "Show a matter, and what was added to it."),
}
_QUARANTINE = {
    "get": ("scripts.quarantine.get_command:get_bundles", "Copy bundles as RiskOS sent them into a new folder."),
    "list": ("scripts.quarantine.list_command:list_bundles", "Show bundles that could not be read, and why."),
    "retry": ("scripts.quarantine.retry_command:retry_bundles", "Read bundles again and archive what they hold."),
}
_RETENTION = {
    "apply": ("scripts.retention.apply_command:apply", "Dispose of what a plan names and is still due."),
    "check": ("scripts.retention.check_command:check", "Check a schedule, and explain what it decides."),
    "event": ("scripts.retention.event_command:event", "Record events that start clocks of the schedule."),
    "plan": ("scripts.retention.plan_command:plan", "Show documents due by a day, and those held back."),
    "status": ("scripts.retention.status_command:status", "Show what is due, what waits, and the last application."),
}

_UNLOGGED = frozenset(("demo", "doctor", "serve", "settings", "simulate", "status", "worker"))
"""Commands that neither show nor change a single evaluation, so the access log does not have them."""


def _logged(arguments: Sequence[str]) -> contextlib.AbstractContextManager[dict[str, object]]:
    """Return a context manager that writes a command to the access log, unless it is exempt."""
    names = main.commands.keys() - _UNLOGGED
    if not names.intersection(arguments[:1]) or _HELP.intersection(arguments):
        return contextlib.nullcontext({})
    from scripts.console.command_log import logged_command  # noqa: PLC0415  # `--help` does not need it

    return logged_command(arguments)


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=CommandLine, table=_COMMANDS, sections=_SECTIONS, context_settings=_CONTEXT)
@click.version_option(package_name="docv-archive")
def main() -> None:
    """Copy the images of DocV evaluations from RiskOS into your own archive, and check that none is missing.

    Settings are environment variables DOCV_..., also read from .env; docs/configuration.md lists them.
    """


@main.group(cls=LazyGroup, table=_DEAD_LETTERS)
def dead_letters() -> None:
    """List, redrive or drop evaluations out of attempts."""


class LegalHoldGroup(LazyGroup):
    """The group `legal-hold`: says what replaced its former options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse the options of a hold without a matter."""
        if not {"--on", "--off"}.isdisjoint(args):
            raise click.UsageError(
                "there is no --on and --off: a legal hold is a matter. `legal-hold create MATTER --reason TEXT` begins "
                "it, `legal-hold add MATTER ID...` holds, and `legal-hold release MATTER --reason TEXT` ends it",
                ctx,
            )
        return super().parse_args(ctx, args)


@main.group(cls=LegalHoldGroup, table=_LEGAL_HOLD)
def legal_hold() -> None:
    """Keep evaluations for a lawsuit or an audit: legal holds."""


@main.group(cls=LazyGroup, table=_QUARANTINE)
def quarantine() -> None:
    """List, copy or retry bundles that could not be read."""


@main.group(cls=LazyGroup, table=_RETENTION)
def retention() -> None:
    """Keep documents for as long as a schedule says."""


if __name__ == "__main__":
    main()
