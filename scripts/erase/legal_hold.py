"""Put evaluations under legal hold in S3, or end it. No version under hold can be removed."""

from collections.abc import Sequence

import click
import orjson

from scripts.archive_access.s3_client import S3Archive, open_s3_archive, translate_s3_errors
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.options import account_option, json_option
from scripts.erase.versions import S3Versions
from tasks.model.evaluation import Evaluation, parse_eval_id
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, SettingsError


@click.command()
@click.argument("eval_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--on/--off", "on", required=True, default=None, help="Start or end the legal hold.")
@account_option()
@json_option("Print one JSON object per line.")
def legal_hold(eval_ids: Sequence[str], account: str | None, *, on: bool, as_json: bool) -> int:
    """Put evaluations under legal hold, so that their objects cannot be removed, or end the hold.

    Needs a bucket with Object Lock.
    """
    ids = list(dict.fromkeys(map(parse_eval_id, eval_ids)))
    settings = load_account_settings(account)
    archive = _open_lockable_archive(settings)
    counts = []
    for eval_id in ids:
        count = hold_all(archive, Evaluation(eval_id, settings.environment), "ON" if on else "OFF")
        if as_json:
            click.echo(orjson.dumps({"eval_id": eval_id, "legal_hold": on, "objects": count}))
        elif count:
            objects = format_count(count, "object", "is", "are")
            click.echo(f"{eval_id}: {objects} {'under legal hold' if on else 'no longer under legal hold'}")
        else:
            click.echo(f"{eval_id}: nothing of it is in the archive")
        counts.append(count)
    return OK if all(counts) else NOT_ALL


def _open_lockable_archive(settings: Settings) -> S3Archive:
    archive = open_s3_archive(settings)
    if archive is None:
        raise SettingsError((f"{settings.archive_url} is a folder, and a folder has no legal hold: it needs S3",))
    if not archive.has_object_lock():
        raise SettingsError(
            (f"bucket {archive.bucket} has no Object Lock, so it has no legal hold; turn Object Lock on first",)
        )
    return archive


def hold_all(archive: S3Archive, evaluation: Evaluation, status: str) -> int:
    """Set the hold ``ON`` or ``OFF`` for each version of an evaluation's objects; return the number of objects.

    Noncurrent versions are included, as are those behind a delete marker, because they can be removed, too.
    """
    items = [item for item in S3Versions(archive).items(evaluation) if not item.deletion]
    for item in items:
        where = {"Bucket": archive.bucket, "Key": archive.prefix + item.key, "VersionId": item.version}
        with translate_s3_errors("s3:PutObjectLegalHold"):
            archive.client.put_object_legal_hold(**where, LegalHold={"Status": status})
    return len({item.key for item in items})
