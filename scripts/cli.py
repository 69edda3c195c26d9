"""The table of commands. They print data on standard output, progress and logs on standard error."""

import sys
from typing import Any

import click

from scripts.console.lazy_group import LazyGroup


class CommandLine(LazyGroup):
    """The group of all commands: turns return values and errors into exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            try:
                code = super().invoke(ctx)
            finally:
                # click ends quietly if standard output is closed; the interpreter would not, when it flushes at exit.
                sys.stdout.flush()
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
    "audit": ("scripts.audit.command:audit", "Ask the archive, not the logs: for each ID its outcome, or `missing`."),
    "backfill": (
        "scripts.commands.backfill:backfill",
        "Archive a whole list: a named run, safe to stop and to start again.",
    ),
    "cancel": (
        "scripts.commands.cancel:cancel",
        "Take back what is not in flight: a run, or evaluations for all that wait for them.",
    ),
    "demo": ("scripts.commands.demo:demo", "Show the main job: no key, no server, no Docker."),
    "doctor": ("scripts.doctor.command:doctor", "Examine this installation: what is wrong, and how to mend it."),
    "enqueue": ("scripts.commands.enqueue:enqueue", "Put evaluations on a queue; workers archive them."),
    "erase": ("scripts.erase.command:erase", "Erase evaluations for good: a privacy request."),
    "export": ("scripts.export.command:export", "Bring documents back out of the archive, each checked on its way."),
    "hold": ("scripts.commands.hold:hold", "Stop sending requests until `resume`; nothing is lost meanwhile."),
    "legal-hold": (
        "scripts.erase.legal_hold:legal_hold",
        "Put evaluations under legal hold, or end it: nobody can remove what is under hold.",
    ),
    "rate": (
        "scripts.commands.rate:rate",
        "Show the rate, or set it to RATE requests a second, for all workers and at once.",
    ),
    "report": (
        "scripts.report.command:report",
        "Tell what became of every evaluation of a backfill, asked of the archive.",
    ),
    "resume": (
        "scripts.commands.hold:resume",
        "End the holds of accounts and the archive, whatever their reason.",
    ),
    "run": ("scripts.commands.run:run", "Archive evaluations, on this machine, now."),
    "serve": (
        "scripts.serve.server:serve",
        "Take events of RiskOS and IDs over HTTP, and show the operations page, until told to stop.",
    ),
    "show": (
        "scripts.commands.show:show",
        "Show where an evaluation is, how it ended, and what the archive holds of it.",
    ),
    "simulate": (
        "scripts.commands.simulate:simulate",
        "Be a RiskOS, for rehearsals: every answer and fault, chosen by the evaluation's ID.",
    ),
    "status": (
        "scripts.commands.status:status",
        "Show queues, holds, runs and dead letters, or the counters of one RUN.",
    ),
    "verify": (
        "scripts.verify.command:verify",
        "Read the archive back and compare it with its manifests; print every difference, change nothing.",
    ),
    "worker": (
        "scripts.commands.worker:worker",
        "Serve the queues until told to stop; as many of these as you like share one Redis.",
    ),
}
_DEAD_LETTERS = {
    "drop": ("scripts.commands.dead_letters:drop", "Forget them: nothing will archive them any more."),
    "list": ("scripts.commands.dead_letters:list_dead_letters", "Show them, with the cause of each."),
    "redrive": ("scripts.commands.dead_letters:redrive", "Try them anew, with all their attempts."),
}

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=CommandLine, table=_COMMANDS, context_settings=_CONTEXT)
@click.version_option(package_name="docv-archive")
def main() -> None:
    """Carry the images of DocV evaluations from RiskOS into an archive of your own, and prove it.

    Settings are environment variables DOCV_..., also read from .env; README.md lists them.
    """


@main.group(cls=LazyGroup, table=_DEAD_LETTERS)
def dead_letters() -> None:
    """Evaluations that were tried enough: list them, try them anew, drop them."""


if __name__ == "__main__":
    main()
