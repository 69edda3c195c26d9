"""The command `quarantine get`: copy bundles into a folder, decrypted and compared with their SHA-256."""

import asyncio
import hashlib
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.archive_access.quarantine import QuarantinedBundle
from scripts.console.exit_codes import INTERRUPTED, NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.export.staging import check_target_absent, make_folders, new_file, put_in_place, staging_folder
from scripts.quarantine.selection import QuarantineSelection, make_selection, select_bundles, selection_options
from tasks.errors import IntegrityError, SealingKeyMissing
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings


@click.command("get")
@selection_options
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="Folder to create.")
def get_bundles(*, account: str | None, target: Path, **chosen: Any) -> int:
    """Copy bundles as RiskOS sent them into a new folder.

    Each bundle becomes EVAL_ID/SHA256.zip. Sealed bundles are opened, and each is compared with its SHA-256. Handle
    them with care: this version refused them. Needs neither Redis nor RiskOS.
    """
    check_target_absent(target)
    settings, selection = load_account_settings(account), make_selection(**chosen)

    def get() -> int:
        try:
            with staging_folder(target) as staging:
                tree = staging / "tree"
                copied, problems = asyncio.run(_copy_all(settings, selection, tree))
                if copied:
                    put_in_place(tree, target)
        except KeyboardInterrupt:
            click.echo("\nStopped. No copied bundle is left behind.", err=True)
            return INTERRUPTED
        bundles = format_count(len(copied), "bundle")
        click.echo(f"{target}: {bundles}" if copied else "no bundle matches: nothing was created", err=True)
        missing = [each for each in selection.eval_ids if each not in copied and each not in problems]
        for eval_id in missing:
            click.echo(f"{eval_id}: it has no bundle in quarantine", err=True)
        return NOT_ALL if missing or problems or not copied else OK

    return interruptible(get)


async def _copy_all(settings: Settings, selection: QuarantineSelection, folder: Path) -> tuple[list[str], set[str]]:
    """Copy bundles; return the evaluation of each copied bundle, and the evaluations with bundles that failed."""
    copied, problems = list[str](), set[str]()
    async with (
        open_read_only_bucket(settings) as bucket,
        aclosing(select_bundles(bucket, settings.environment, selection)) as bundles,
    ):
        decrypting = EncryptedBucket(bucket, Keyring.of(settings.keyring_texts()))
        async for bundle in (each async for some in bundles for each in some):
            try:
                await _copy(decrypting, settings.environment, bundle, folder)
            except (IntegrityError, SealingKeyMissing) as error:
                problems.add(bundle.eval_id)
                click.echo(f"{bundle.eval_id}: {error}", err=True)
            else:
                copied.append(bundle.eval_id)
                click.echo(f"{bundle.eval_id}/{bundle.sha256}.zip")
    return copied, problems


async def _copy(decrypting: Bucket, environment: str, bundle: QuarantinedBundle, folder: Path) -> None:
    """Copy one bundle; a damaged copy is removed.

    Raises:
        IntegrityError: the bundle is gone, or its SHA-256 does not match its key.
        SealingKeyMissing: the bundle is sealed with a key that is not configured.
    """
    chunks = await decrypting.stream(Evaluation(bundle.eval_id, environment).quarantine_key(bundle.sha256))
    if chunks is None:
        raise IntegrityError("a bundle is no longer in quarantine")
    path, digest = folder / bundle.eval_id / f"{bundle.sha256}.zip", hashlib.sha256()
    make_folders(path.parent)
    with new_file(path) as file:
        async with aclosing(chunks):
            async for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != bundle.sha256:
            raise IntegrityError("a bundle in quarantine is damaged: its SHA-256 does not match its key")
