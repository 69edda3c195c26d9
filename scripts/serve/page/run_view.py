"""The page of a run, and its report as CSV."""

import asyncio
import io
from collections import Counter
from dataclasses import dataclass, field

import structlog
from aiohttp import web
from redis.exceptions import RedisError

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.console.csv_output import write_row
from scripts.overview.release_holds import find_hold
from scripts.overview.run_rows import report_rows
from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.roles import Caller
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.flash import read_flash
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.renderer import HEADERS, PageRenderer
from tasks.errors import IntegrityError, StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.job import DeadLetter
from tasks.model.outcome import Outcome
from tasks.resilience.holds import scope_of_run
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import RunList, find_run_list, read_chunk, read_run_list

_log = structlog.get_logger("docv.serve")
_SECONDS = 10.0
_CHUNK = 500
_MOST_READ = 5_000
_MOST_SHOWN = 50


@dataclass(slots=True)
class RunFailures:
    """Dead letters of a run.

    Attributes:
        causes: number of dead letters by cause.
        letters: the first of them.
        is_whole: whether no dead letter of the run can be missing.
    """

    causes: Counter[str] = field(default_factory=Counter)
    letters: list[DeadLetter] = field(default_factory=list)
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class RunView:
    """The page of a run.

    Attributes:
        environment: environment in which a run list is looked up first.
        reports: lets one report at a time read the archive.
    """

    renderer: PageRenderer
    cache: OverviewCache
    ledger: Ledger
    bucket: Bucket
    environment: str
    reports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/run``."""
        name = request.query.get("run", "")
        times = await self.ledger.runs.get_times(name)
        if times is None:
            raise HTTPError(404, "Redis has no run with this name; the archive may have it: try `docv-archive report`")
        with logged_access(request, caller, "run.viewed", run=name):
            run = await self.ledger.runs.get_counters(name)
            failures = await self._read_failures(name, run.outcomes[Outcome.FAILED])
        found, problem = await self._find_list(name)
        return self.renderer.respond(
            "run.html.j2",
            caller,
            name=name,
            run=run,
            began=times[0],
            changed=times[1],
            listed=found,
            problem=problem,
            failures=failures,
            hold=await find_hold(self.ledger.redis, scope_of_run(name)),
            overview=(await self.cache.get()).overview,
            flash=read_flash(request),
            at="/page/runs",
        )

    async def report(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Answer ``GET /page/report``: the outcome of each evaluation of a run, as CSV."""
        name = request.query.get("run", "")
        found, problem = await self._find_list(name)
        if found is None:
            raise HTTPError(503 if problem else 404, problem or "the archive has no list of this run")
        if self.reports.locked():
            raise HTTPError(503, "another report is being generated; try again later", {"Retry-After": "30"})
        async with self.reports:
            with logged_access(request, caller, "run.reported", run=name) as logged:
                return await self._send_report(request, found, logged)

    async def _send_report(
        self, request: web.Request, listed: RunList, logged: dict[str, object]
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                **HEADERS,
                "Content-Disposition": f'attachment; filename="{listed.run}.csv"',
                "Content-Type": "text/csv; charset=utf-8",
            }
        )
        await response.prepare(request)
        count = 0
        try:
            await response.write(_csv([EvaluationRow.names()]))
            for piece in listed.pieces:
                rows = report_rows(
                    self.bucket,
                    listed.environment,
                    self.ledger,
                    await read_chunk(self.bucket, piece),
                    is_cancelled=listed.cancelled_at is not None,
                )
                async for some in rows:
                    await response.write(_csv([[*row.as_json().values()] for row in some]))
                    count += len(some)
        except (StorageError, IntegrityError, RedisError) as error:
            # The headers are sent: the connection is cut so that the file does not look complete.
            _log.error("report.cut", error=type(error).__name__)
            response.force_close()
            if request.transport:
                request.transport.abort()
        logged["evaluations"] = count
        return response

    async def _find_list(self, name: str) -> tuple[RunList | None, str]:
        """Return the list of a run, if it has one, and the problem if it cannot be read."""
        if await self.ledger.runs.get_times(name) is None:
            return None, ""
        fingerprint = await self.ledger.runs.get_fingerprint(name)
        try:
            async with asyncio.timeout(_SECONDS):
                if fingerprint is None:  # `run` and `enqueue --run` store a list, but feed the run themselves
                    return await read_run_list(self.bucket, self.environment, name), ""
                found = await find_run_list(self.bucket, name, fingerprint, self.environment)
        except (StorageError, TimeoutError):
            return None, "the archive does not answer, so the run's list cannot be shown"
        except IntegrityError as error:
            return None, str(error)
        return found, "" if found else "the list of this run is missing from the archive"

    async def _read_failures(self, name: str, count: int) -> RunFailures:
        """Return the dead letters of a run, at most ``count``, that are among the newest of their cause."""
        found = RunFailures()
        causes = await self.ledger.dead_letters.count_causes() if count else {}
        for cause, total in causes.items():
            read, most = 0, min(total, max(_CHUNK, _MOST_READ // len(causes)))
            while read < most and found.causes.total() < count:
                letters = await self.ledger.dead_letters.get_many(
                    await self.ledger.dead_letters.list_by_cause(cause, _CHUNK, skip=read)
                )
                read += _CHUNK
                of_run = [letter for letter in letters if name in letter.runs]
                found.causes[cause] += len(of_run)
                found.letters += of_run[: _MOST_SHOWN - len(found.letters)]
            found.is_whole = found.is_whole and read >= total
        found.is_whole = found.is_whole or found.causes.total() >= count
        found.causes = +found.causes
        return found


def _csv(rows: list[list[object]] | list[list[str]]) -> bytes:
    text = io.StringIO()
    for row in rows:
        write_row(text, row)
    return text.getvalue().encode()
