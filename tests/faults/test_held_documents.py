"""Every reader reports the documents that the archive holds, whatever RiskOS deletes and whatever fails meanwhile.

Random histories of evaluations run against a model. The real pipeline fills the archive, and audit, export,
report, show, verify, the HTTP API, the operations page and an inventory of its objects read it.
"""

import csv
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import aiohttp
from redis.asyncio import Redis

from scripts.audit.inventory_holdings import open_holdings
from scripts.audit.inventory_objects import InventoryObject
from scripts.erase.erasure import Erased, ErasureStores, erase_one
from scripts.erase.files import LocalFiles
from scripts.erase.receipt import ErasureRequest
from scripts.erase.traces import RedisRecords
from tasks.bundle.documents import Kind
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.errors import StorageError
from tasks.memory.buffer_pool import Buffer
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, Outcome, SourceStatus
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tests.archives import store_run
from tests.commands import Shell
from tests.disposals import list_as_disposed
from tests.faults.histories import ExpectedArchive, RiskOSEvaluation
from tests.faults.scale import Scale
from tests.riskos import Clock, ReceivedRequest, Reply, serve_requests
from tests.scripts.serve.conftest import OPERATOR, basic, running_client, settings_for
from worker.config.settings import Settings

_SHORT_SECONDS, _LONG_SECONDS = 3.0, 1_200.0
_EVALUATIONS, _STEPS = 24, 10
_FIRST_SEED = 2  # with this seed, everything that is counted happens
_OPTIONS = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
_ERASURE = ErasureRequest("request 4711", "operator", "a-host", even_if_absent=True)


class FailingBucket(LocalBucket):
    """A folder that fails before one of the next writes, as if the process were killed there."""

    writes_left: int | None = None

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:
        self._count()
        await super().create(key, data, attributes)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
        self._count()
        await super().replace(key, data, attributes, etag)

    def _count(self) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise StorageError("create", "the process is gone")


@dataclass
class History:
    """One evaluation: its history, and the expected contents of the archive.

    Attributes:
        eval_id: its ID.
        riskos: its state at RiskOS.
        expected: the expected contents of the archive.
        has_orphans: whether an interrupted attempt may have left objects.
        disposals: how many documents the manifest lists as disposed of; it lists the same bytes once for each kind.
    """

    eval_id: str
    riskos: RiskOSEvaluation
    expected: ExpectedArchive = field(default_factory=ExpectedArchive)
    has_orphans: bool = False
    disposals: int = 0


@dataclass
class World:
    """Evaluations at RiskOS, and their archive.

    Attributes:
        dice: decides what happens, and when.
        folder: the folder of the archive.
        bucket: the archive.
        ctx: the context for the pipeline.
        histories: by evaluation.
        counts: how often each thing happened.
    """

    dice: random.Random
    folder: Path
    bucket: FailingBucket
    ctx: PipelineContext
    histories: dict[str, History]
    counts: Counter[str] = field(default_factory=Counter)

    async def step(self) -> None:
        """Let something happen to an evaluation at RiskOS, and usually archive it then."""
        history = self.dice.choice(list(self.histories.values()))
        for _ in range(self.dice.choice([0, 1, 1, 2])):
            history.riskos.change()
        if self.dice.random() < 0.04:
            await self._erase(history)
        elif history.expected.held and self.dice.random() < 0.08:
            await self._dispose(history)
        else:
            await self._archive(history, cut_off=self.dice.random() < 0.15)

    async def _archive(self, history: History, *, cut_off: bool) -> None:
        refresh, even_if_erased = self.dice.random() < 0.9, self.dice.random() < 0.5
        job = Job(
            history.eval_id,
            "token",
            Queue.LIVE,
            "default",
            refresh,
            0,
            0,
            Trigger("run"),
            even_if_erased=even_if_erased,
        )
        self.bucket.writes_left = self.dice.randrange(6) if cut_off else None
        history.riskos.answered.clear()
        try:
            result = await archive(job, self.ctx)
        except StorageError:
            history.has_orphans = True
            self.counts["cut off"] += 1
            await self._record_received(history)
            return
        finally:
            self.bucket.writes_left = None
        self._record(history, result, refresh=refresh, even_if_erased=even_if_erased)

    def _record(self, history: History, result: ArchiveResult, *, refresh: bool, even_if_erased: bool) -> None:
        expected = history.expected
        is_open = expected.outcome is None or expected.is_unconfirmed
        is_requested = even_if_erased if expected.outcome == "erased" else is_open or refresh
        assert (result.answer is not None) == is_requested
        if is_requested:
            before, held = expected.outcome, len(expected.held)
            for answered in history.riskos.answered:
                expected.record(answered)
            is_new = len(expected.held) > held or before != expected.outcome
            self.counts["requested"] += 1
            if expected.held and not is_new and result.outcome is Outcome.UNCHANGED:
                self.counts["unchanged with documents"] += 1
            if is_new:
                assert result.outcome == ("withheld" if expected.outcome == "disposed" else expected.outcome)
            elif expected.held and expected.outcome == "archived":
                # Only renamed documents are recorded as new.
                assert result.outcome in {Outcome.UNCHANGED, Outcome.ARCHIVED}
                assert result.ok
        if result.unchanged:
            assert result.unchanged == expected.outcome

    async def _record_received(self, history: History) -> None:
        """Record the first answer of an interrupted attempt, if its damaged bundle is in the archive."""
        found = await read_manifest(self.bucket, Evaluation(history.eval_id, "sandbox"))
        if found and found.manifest.unconfirmed and not history.expected.is_unconfirmed:
            history.expected.record(history.riskos.answered[0])
            history.expected.is_unconfirmed = True
            self.counts["cut off before the second answer"] += 1

    async def _dispose(self, history: History) -> None:
        held = sorted(history.expected.held)
        gone = self.dice.sample(held, self.dice.randint(1, len(held)))
        evaluation = Evaluation(history.eval_id, "sandbox")
        keys = await list_as_disposed(self.bucket, evaluation, lambda document: document.sha256 in gone)
        await self.bucket.remove(keys)
        history.expected.dispose(gone)
        history.disposals += len(keys)
        self.counts["disposed of"] += 1

    async def _erase(self, history: History) -> None:
        stores = ErasureStores(self.bucket, LocalFiles(self.folder), RedisRecords(None))
        result = await erase_one(Evaluation(history.eval_id, "sandbox"), _ERASURE, stores)
        assert isinstance(result, Erased)
        history.expected.erase()
        history.has_orphans = False
        self.counts["erased"] += 1

    def check_row(self, history: History, row: dict[str, object]) -> None:
        """Compare a reader's row of an evaluation with the expected one."""
        expected = history.expected
        assert row["outcome"] == (expected.outcome or "missing")
        if expected.status or expected.outcome is None:
            assert row["at_source"] == (expected.status and expected.status.value)
        assert row["disposed"] == history.disposals
        keys = self.document_keys(history.eval_id)
        assert {key.stem for key in keys} >= expected.held
        if not history.has_orphans:
            assert row["documents"] == len(keys)
            assert row["bytes"] == sum(key.stat().st_size for key in keys)
            assert {key.stem for key in keys} == expected.held

    def document_keys(self, eval_id: str) -> list[Path]:
        """Return the keys of the documents of an evaluation in the folder."""
        return [path for kind in Kind for path in (self.folder / "sandbox" / eval_id / kind.value).glob("*")]


@asynccontextmanager
async def make_world(seed: int, folder: Path, redis: Redis) -> AsyncIterator[World]:
    dice = random.Random(seed)  # noqa: S311  # not a secret
    histories = {}
    for _ in range(_EVALUATIONS):
        eval_id = str(UUID(int=dice.getrandbits(128)))
        histories[eval_id] = History(eval_id, RiskOSEvaluation(random.Random(dice.random())))  # noqa: S311

    def answer(request: ReceivedRequest) -> Reply:
        return Reply(histories[request.path.split("/")[3]].riskos.respond())

    async with serve_requests(answer) as server, aiohttp.ClientSession() as http:
        policy = RetryPolicy(quick_attempts=1, quick_pause=0.0)
        client, bucket = Clock(redis).make_client(server.url, http, _OPTIONS, policy), FailingBucket(folder)
        gate = ArchiveGate(client.holds, client.breaker)
        ctx = PipelineContext(client, gate, UploadTarget(bucket), bucket, BundleUnpacker(Limits()))
        yield World(dice, folder, bucket, ctx, histories)


async def test_every_reader_reports_held_documents_that_riskos_deleted(
    scale: Scale, figures: Callable[[str], None], redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    ends_at = time.monotonic() + (_LONG_SECONDS if scale.long else _SHORT_SECONDS)
    counts, rounds = Counter[str](), 0
    while rounds == 0 or time.monotonic() < ends_at:
        folder = tmp_path / str(rounds)
        folder.mkdir()
        seed = random.SystemRandom().randrange(1 << 32) if scale.long else _FIRST_SEED + rounds
        try:
            async with make_world(seed, folder / "archive", redis) as world:
                for _ in range(_EVALUATIONS * _STEPS):
                    await world.step()
                await check_every_reader(world, Shell(folder, {"DOCV_REDIS_URL": redis_url}))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        counts += world.counts
        rounds += 1
    happened = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    figures(
        f"{rounds * _EVALUATIONS:,} random histories of held documents ({happened}): every reader agrees with the bytes"
    )
    assert (
        min(
            counts[what]
            for what in (
                "requested",
                "cut off before the second answer",
                "disposed of",
                "erased",
                "unchanged with documents",
            )
        )
        > 0
    )


async def check_every_reader(world: World, shell: Shell) -> None:
    eval_ids = list(world.histories)
    await store_run(world.bucket, eval_ids, "q3")
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))
    commands = (
        ("audit", "ids.txt", "--json"),
        ("report", "q3", "--json"),
        ("export", "--ids", "ids.txt", "--to", "all", "--json"),
        ("export", "--ids", "ids.txt", "--to", "current", "--current", "--json"),
        ("audit", "ids.txt", "--gone-at-source", "--json"),
        ("verify", "--grace", "0", "--json"),
        ("show", eval_ids[0], "--json"),
    )
    audit, report, export, current, gone, verify, show = [
        [json.loads(line) for line in (await shell.run(*command)).out.splitlines()] for command in commands
    ]
    for difference in verify:
        assert difference["problem"] in {"orphan", "manifest_missing", "disposed_still_there"}
        assert world.histories[difference["eval_id"]].has_orphans
    assert audit == report
    for row in audit:
        world.check_row(world.histories[row["eval_id"]], row)
    held = [row for row in audit if row["outcome"] != "disposed"]
    assert gone == [row for row in held if row["at_source"] in {"gone", "partly_gone"}]
    assert common_fields(show[0]) == common_fields(audit[0])
    check_export(world, shell.folder, audit, export, current)
    check_inventory(world, audit)
    await check_pages(world, shell, audit)


def common_fields(row: dict[str, object]) -> dict[str, object]:
    names = ("eval_id", "outcome", "documents", "bytes", "at_source", "manifest", "disposed")
    return {name: row[name] for name in names}


def check_export(
    world: World,
    folder: Path,
    audit: list[dict[str, object]],
    export: list[dict[str, object]],
    current: list[dict[str, object]],
) -> None:
    for row, everything, now in zip(audit, export, current, strict=True):
        history = world.histories[str(row["eval_id"])]
        same = ("eval_id", "outcome", "documents", "bytes", "disposed")
        assert [everything[name] for name in same] == [row[name] for name in same]
        rows = read_names(folder / "all" / history.eval_id)
        found = [each for each in rows if not each["disposed"]]
        assert len(rows) - len(found) == history.disposals
        assert {each["sha256"] for each in found} == history.expected.held
        for each in found:
            expected = history.expected.at_source[each["sha256"]]
            assert each["at_source"] == (expected or each["at_source"])
        words = Counter(each["at_source"] for each in found)
        if found and row["at_source"] != "unknown":
            assert row["at_source"] == ("present" if not words["no"] else "partly_gone" if words["yes"] else "gone")
            assert now["documents"] == words["yes"]
        else:
            assert not words["yes"] + words["no"]


def read_names(folder: Path) -> list[dict[str, str]]:
    """Return the rows of names.csv of an evaluation; each file must have the size in its row."""
    if not (folder / "names.csv").exists():
        return []
    with (folder / "names.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["disposed"] or (folder / row["file"]).stat().st_size == int(row["size"]) for row in rows)
    return rows


def check_inventory(world: World, audit: list[dict[str, object]]) -> None:
    listing = [
        InventoryObject("archive", path.relative_to(world.folder).as_posix(), path.stat().st_size)
        for path in world.folder.rglob("*")
        if path.is_file()
    ]
    with open_holdings(listing, Settings(archive_url="s3://archive", environment="sandbox")) as known:
        for row, found in zip(audit, known.rows([str(each["eval_id"]) for each in audit]), strict=True):
            assert (found.outcome == "missing") == (row["outcome"] == "missing")
            if not world.histories[found.eval_id].has_orphans:
                assert (found.documents, found.bytes) == (row["documents"], row["bytes"])


async def check_pages(world: World, shell: Shell, audit: list[dict[str, object]]) -> None:
    async with running_client(settings_for(shell.settings["DOCV_REDIS_URL"], shell.folder)) as client:
        for row in audit:
            record = (await client.look_up(str(row["eval_id"]))).json
            assert common_fields(record) == common_fields(row)
            path = f"/page/evaluation?id={row['eval_id']}&pictures"
            page = (await client.send("GET", path, Authorization=basic(OPERATOR))).body.decode()
            if row["outcome"] in {"missing", "erased"}:
                continue
            assert f'<dt>Outcome</dt><dd><span class="dot o-{row["outcome"]}">' in page
            (holds,) = re.findall(r"<dt>The archive holds</dt><dd>(\w+) document", page)
            assert holds.replace("no", "0") == str(row["documents"])
            assert page.count("<figure>") == row["documents"]
            is_gone = row["at_source"] == SourceStatus.GONE.value and row["outcome"] != "disposed"
            assert ("<dd>none of them, when last asked" in page) == is_gone, row
