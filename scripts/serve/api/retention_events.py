"""Record events that start clocks of the retention schedule, reported over HTTP."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import CALLER, is_same_site
from scripts.serve.http.body import check_unicode, explain_mismatch, parse_object, read_body
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError, json_response
from tasks.errors import StorageError
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EventReport, parse_event, parse_event_day, record_event
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import read_manifest
from worker.config.accounts import Accounts

_SECONDS = 10.0
_LATER = "the archive does not answer, so the event may not be recorded; send the event again later"
_Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]


class EventRequest(BaseModel):
    """The body of a request that reports an event."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    event: str = Field(description="Name of the event: the clock of a rule in the retention schedule.")
    date: _Day | None = Field(description="Day of the event, today at the latest; null withdraws an earlier report.")


class EventResponse(BaseModel):
    """An event as the archive has it now."""

    eval_id: str = Field(description="The evaluation.")
    event: str = Field(description="Name of the event.")
    date: _Day | None = Field(description="Day of the event; null if it is withdrawn, or was never reported.")
    recorded: bool = Field(description="False if the archive already had the same report.")


@dataclass(frozen=True, slots=True)
class RetentionEventsApi:
    """Records events in the archive; the middleware lets only some roles call it."""

    bucket: Bucket
    accounts: Accounts
    schedule: Schedule | None
    limits: HttpLimits

    async def record(self, request: web.Request) -> web.Response:
        """Answer ``POST /evaluations/{eval_id}/events``."""
        caller = request[CALLER]
        if not is_same_site(request):
            raise HTTPError(403, "this request came from another site, so nothing was done")
        account = resolve_account(self.accounts, request.query.get("account"), 400)
        evaluation = Evaluation(read_eval_id(request.match_info["eval_id"]), account.settings.environment)
        body = await read_body(request, self.limits)
        now = datetime.now(UTC)
        event, day = self._parse(check_unicode(body, parse_object(body, self.limits)), now.date())
        with logged_access(request, caller, "event.recorded", eval_id=evaluation.eval_id, name=event) as logged:
            is_new = await self._record(evaluation, EventReport(event, day, caller.name), now)
            logged["recorded"] = is_new
        response = EventResponse(
            eval_id=evaluation.eval_id, event=event, date=day.isoformat() if day else None, recorded=is_new
        )
        return json_response(201 if is_new else 200, response.model_dump())

    def _parse(self, body: dict[str, Any], today: date) -> tuple[str, date | None]:
        """Return the event of a body and its day."""
        if self.schedule is None:
            raise HTTPError(409, "there is no retention schedule, so no event starts a clock: set DOCV_RETENTION")
        try:
            wanted = EventRequest.model_validate(body)
            event = parse_event(wanted.event, self.schedule.events)
            return event, None if wanted.date is None else parse_event_day(wanted.date, today)
        except ValidationError as error:
            raise HTTPError(422, explain_mismatch(error)) from None
        except ValueError as error:
            raise HTTPError(422, str(error)) from None

    async def _record(self, evaluation: Evaluation, report: EventReport, now: datetime) -> bool:
        """Record an event; return whether it is new."""
        try:
            async with asyncio.timeout(_SECONDS):
                stored = await read_manifest(self.bucket, evaluation)
                if stored is None or stored.manifest.erased:
                    raise HTTPError(404, "this evaluation is not in the archive" if stored is None else "it was erased")
                return await record_event(self.bucket, evaluation, report, now) is not None
        except (StorageError, TimeoutError):
            raise HTTPError(503, _LATER, {"Retry-After": "5"}) from None
