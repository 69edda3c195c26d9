"""Put evaluations under legal hold in S3, or take them out of it: under hold no version can be removed."""

from collections.abc import Sequence

import click
import orjson

from scripts.archive_access.s3_client import S3Archive, open_s3_archive, translate_s3_errors
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.options import account_option, json_option
from scripts.erase.stock import prefixes_of
from scripts.erase.versions import S3Versions
from tasks.model.evaluation import Evaluation, parse_eval_id
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, SettingsError


@click.command()
@click.argument("eval_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--on/--off", "on", required=True, default=None, help="Begin or end it.")
@account_option()
@json_option("Print one JSON object a line.")
def legal_hold(eval_ids: Sequence[str], account: str | None, *, on: bool, as_json: bool) -> int:
    """Put evaluations under legal hold, or end it: nobody can remove what is under hold.

    It needs a bucket with Object Lock.
    """
    ids = list(dict.fromkeys(map(parse_eval_id, eval_ids)))
    settings = load_account_settings(account)
    archive = _lockable(settings)
    counts = []
    for eval_id in ids:
        count = hold_all(archive, Evaluation(eval_id, settings.environment), "ON" if on else "OFF")
        if as_json:
            click.echo(orjson.dumps({"eval_id": eval_id, "legal_hold": on, "objects": count}))
        elif count:
            click.echo(f"{eval_id}: {count} objects are {'under legal hold' if on else 'under legal hold no more'}")
        else:
            click.echo(f"{eval_id}: the archive has nothing of it")
        counts.append(count)
    return OK if all(counts) else NOT_ALL


def _lockable(settings: Settings) -> S3Archive:
    archive = open_s3_archive(settings)
    if archive is None:
        raise SettingsError((f"{settings.archive_url} is a folder, and a folder knows no legal hold; S3 does",))
    if not archive.has_object_lock():
        raise SettingsError(
            (f"bucket {archive.bucket} has no Object Lock, so it knows no legal hold; turn Object Lock on first",)
        )
    return archive


def hold_all(archive: S3Archive, evaluation: Evaluation, status: str) -> int:
    """Set it, ``ON`` or ``OFF``, for each object of an evaluation; return how many there are."""
    keys = [key for prefix in prefixes_of(evaluation) for key in S3Versions(archive).keys(prefix)]
    for key in keys:
        where = {"Bucket": archive.bucket, "Key": archive.prefix + key}
        with translate_s3_errors("s3:PutObjectLegalHold"):
            archive.client.put_object_legal_hold(**where, LegalHold={"Status": status})
    return len(keys)
