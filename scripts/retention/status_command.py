"""The command `retention status`: due and waiting documents, and the last application."""

from contextlib import aclosing
from datetime import datetime

import click
import orjson

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count, format_duration
from scripts.console.options import account_option, json_option
from scripts.console.read_only import run_read_only
from scripts.retention.certificate import CERTIFICATES, Certificate, is_certificate_key, read_certificate
from scripts.retention.survey import Survey, load_survey
from scripts.verify.open_lister import open_lister
from tasks.storage.bucket import Bucket


@click.command("status")
@account_option("Show only the environment of this account of DOCV_ACCOUNTS; if omitted, both environments.")
@json_option()
def status(account: str | None, *, as_json: bool) -> int:
    """Show what is due today, what waits for something, and the last application.

    Reads every manifest of the archive, and changes nothing. The last application is that of the newest certificate.

    Exit code 1 means that a manifest or an event is damaged, so that its documents are kept.
    """
    return run_read_only(_show(load_survey(account), as_json=as_json))


async def _show(survey: Survey, *, as_json: bool) -> int:
    async with open_read_only_bucket(survey.settings) as bucket:
        counts = await survey.run(bucket, survey.today)
        last = await _find_last(survey, bucket)
    age = survey.now - datetime.fromisoformat(last[1].completed_at) if last else None
    if as_json:
        about = {"until": survey.today, **counts.as_json()}
        click.echo(
            orjson.dumps(
                {
                    **about,
                    "last": last and {"key": last[0], "age_seconds": age and age.total_seconds(), **_facts(last[1])},
                }
            )
        )
    else:
        for sentence in counts.sentences():
            click.echo(sentence)
        if last and age:
            click.echo(
                f"the last certificate is {last[0]}: {format_count(len(last[1].documents), 'document')} of rule "
                f"{last[1].rule}, completed {format_duration(age.total_seconds())} ago"
            )
        else:
            click.echo("there is no certificate yet")
    for sentence in counts.problems():
        click.echo(f"docv-archive: {sentence}", err=True)
    return NOT_ALL if counts.damaged else OK


def _facts(certificate: Certificate) -> dict[str, object]:
    facts = certificate.model_dump(mode="json", exclude={"documents", "schema_"})
    return {**facts, "documents": len(certificate.documents)}


async def _find_last(survey: Survey, bucket: Bucket) -> tuple[str, Certificate] | None:
    """Return the newest certificate, with its key."""
    newest: list[str] = []
    async with open_lister(survey.settings) as lister:
        for environment in survey.environments:
            async with aclosing(lister.walk(f"{CERTIFICATES}{environment}/")) as listing:  # type: ignore[type-var]
                async for some in listing:
                    keys = [each.key for each in some if is_certificate_key(each.key, environment)]
                    newest = [max([*newest, *keys], key=_time_in)] if keys or newest else []
    found = await read_certificate(bucket, newest[0]) if newest else None
    return (newest[0], found) if found else None


def _time_in(key: str) -> str:
    return key.rpartition("/")[2]
