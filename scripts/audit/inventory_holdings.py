"""Sum up an inventory by evaluation in a database on disk, so that memory does not grow with inventory or IDs."""

import errno
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from scripts.archive_access.evaluation_rows import MISSING, PRESENT, EvaluationRow
from scripts.archive_access.s3_client import prefix_of
from scripts.audit.inventory_objects import InventoryObject
from scripts.ids.errors import BadSource
from scripts.ids.scratch import scratch_folder, translate_disk_errors
from tasks.bundle.documents import Kind
from tasks.errors import BadEvalId
from tasks.model.evaluation import Evaluation, parse_eval_id
from worker.clients.disk_errors import explain_disk_error
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError

_AT_ONCE = 20_000
_KINDS = frozenset(Kind)
# The database is only a copy, so it need not survive a crash. The cache takes 64 MiB.
_PRAGMAS = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -65536")
_TABLE = "CREATE TABLE held (id TEXT PRIMARY KEY, manifests INT, documents INT, bytes INT) WITHOUT ROWID"
_ADD = """
INSERT INTO held VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
manifests = manifests + excluded.manifests, documents = documents + excluded.documents, bytes = bytes + excluded.bytes
"""
_FIND = "SELECT manifests, documents, bytes FROM held WHERE id = ?"


class Holdings:
    """Looks up the objects of each evaluation of an environment, as an inventory lists them."""

    def __init__(self, database: sqlite3.Connection, environment: str) -> None:
        self._database, self._environment = database, environment

    def rows(self, eval_ids: Sequence[str]) -> list[EvaluationRow]:
        """Return a row for each ID, in order: ``present`` or ``missing``."""
        return [self._row(eval_id) for eval_id in eval_ids]

    def _row(self, eval_id: str) -> EvaluationRow:
        manifests, documents, size = self._database.execute(_FIND, (eval_id,)).fetchone() or (0, 0, 0)
        if not manifests:
            return EvaluationRow(eval_id, MISSING, documents, size, disposed=None)
        manifest = Evaluation(eval_id, self._environment).manifest_key
        return EvaluationRow(eval_id, PRESENT, documents, size, manifest, disposed=None)


@contextmanager
def open_holdings(objects: Iterable[InventoryObject], settings: Settings) -> Iterator[Holdings]:
    """Read an inventory into a database, and yield the holdings for as long as the block lasts.

    Raises:
        SettingsError: the archive is not a bucket.
        BadSource: the inventory cannot be read to its end, or lists another bucket.
        ServiceUnavailable: the disk is full.
    """
    url = urlsplit(settings.archive_url)
    if url.scheme != "s3":
        raise SettingsError(("--inventory needs S3, but DOCV_ARCHIVE_URL names a folder: leave --inventory out",))
    root = f"{prefix_of(settings.archive_url)}{settings.environment}/"
    scratch = scratch_folder(settings)
    with translate_disk_errors(scratch):
        made = TemporaryDirectory(dir=scratch)
    with (
        made as folder,
        _translate_database_errors(),
        closing(sqlite3.connect(Path(folder) / "held", isolation_level=None)) as database,
    ):
        for statement in (*_PRAGMAS, _TABLE):
            database.execute(statement)
        for some in _sum_objects(objects, url.netloc, root):
            database.execute("BEGIN")
            database.executemany(_ADD, ((eval_id, *sums) for eval_id, sums in some.items()))
            database.execute("COMMIT")
        yield Holdings(database, settings.environment)


def _sum_objects(objects: Iterable[InventoryObject], bucket: str, root: str) -> Iterator[dict[str, list[int]]]:
    """Yield batches of counts of manifests, documents and bytes by evaluation; one may be in several batches."""
    sums: dict[str, list[int]] = {}
    for listed in objects:
        if listed.bucket != bucket:
            raise BadSource(f"it lists the bucket {listed.bucket}, and the archive is in {bucket}")
        if listed.key.startswith(root):
            _count(sums, listed.key.removeprefix(root), listed.size)
        if len(sums) >= _AT_ONCE:
            yield sums
            sums = {}
    yield sums


def _count(sums: dict[str, list[int]], key: str, size: int) -> None:
    eval_id, _, rest = key.partition("/")
    kind = rest.partition("/")[0]
    if rest == "manifest.json":
        counted = (1, 0, 0)
    elif kind in _KINDS:
        counted = (0, 1, size)
    else:
        return
    if _is_canonical(eval_id):
        sums[eval_id] = [sum(pair) for pair in zip(sums.get(eval_id, (0, 0, 0)), counted, strict=True)]


def _is_canonical(eval_id: str) -> bool:
    try:
        return parse_eval_id(eval_id) == eval_id
    except BadEvalId:
        return False


@contextmanager
def _translate_database_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        why = explain_disk_error(OSError(errno.ENOSPC if is_full else errno.EIO, type(error).__name__))
        raise ServiceUnavailable(f"the inventory cannot be kept on disk while it is read: {why}") from None
