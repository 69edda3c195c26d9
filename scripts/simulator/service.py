"""One simulated account of RiskOS: check key, rate and quota of a request, and answer it."""

import asyncio
import contextlib
import dataclasses
import hmac
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from scripts.simulator import messages
from scripts.simulator.answers import SimulatedRequest, SimulatedResponse, json_answer
from scripts.simulator.deliver import deliver
from scripts.simulator.expected import expected_outcome
from scripts.simulator.neighbour import Neighbour
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.rate import SimulatedLimit, SimulatedLimiter, retry_after
from scripts.simulator.records import record_of
from scripts.simulator.scenarios import Scenario, scenario_of
from scripts.simulator.sequences import answer_to, has_several_answers
from scripts.simulator.stats import SimulatorStats, StatsSnapshot
from scripts.simulator.steps import documents
from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id
from tasks.model.outcome import Outcome

ELSEWHERE = "/__elsewhere"
"""URL to which a redirect leads: the same server under another name."""


class SimulatedAccount:
    """The RiskOS account of one key; it counts the requests for each evaluation.

    Args:
        options: initial options.
        limiter: grants requests; another key's limiter if they share rate and quota.

    Attributes:
        options: current options; replaced by a change.
        stats: counters of requests and answers; replaced by a reset.
        limiter: grants requests.
        neighbour: another client with the key, or None if no such client exists or another key's limiter has it.
    """

    def __init__(self, options: SimulatorOptions, limiter: SimulatedLimiter | None = None) -> None:
        self.options = options
        self.stats = SimulatorStats()
        self.limiter = limiter or SimulatedLimiter()
        self.neighbour: Neighbour | None = None
        if options.neighbour and limiter is None:
            self.neighbour = Neighbour(self.limiter, *options.neighbour, now=time.monotonic())
        self._attempts: Counter[str] = Counter()

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change some options.

        Raises:
            ValueError: an option or a value is not possible; nothing was changed.
        """
        self.options = self.options.changed(changes)

    def reset(self) -> None:
        """Set the counters to zero."""
        self.stats = SimulatorStats()

    def snapshot(self, eval_id: str | None = None) -> StatsSnapshot:
        """Return the counters as they are now.

        Args:
            eval_id: the requests of this evaluation only; None for those of all.
        """
        neighbour = self.neighbour.snapshot(time.monotonic()) if self.neighbour else None
        return dataclasses.replace(self.stats.snapshot(eval_id), neighbour=neighbour)

    async def run_neighbour(self, _: web.Application) -> AsyncIterator[None]:
        """Run the neighbour while the application runs."""
        if self.neighbour is None:
            yield
            return
        task = asyncio.create_task(self.neighbour.run(lambda: self.options))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def documents(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /api/evaluation/{eval_id}/documents``."""
        now, eval_id = time.monotonic(), _eval_id_of(request)
        self.stats.count_request(eval_id, now)
        answer = self._refusal(request, now) or await self._answer(request, eval_id)
        return await self._deliver(request, answer, now)

    async def record(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /api/evaluation/{eval_id}``."""
        now, eval_id = time.monotonic(), _eval_id_of(request)
        self.stats.count_record(now)
        known = eval_id and scenario_of(eval_id) is not Scenario.NOT_FOUND
        answer = self._refusal(request, now) or (
            json_answer(200, record_of(eval_id)) if eval_id and known else json_answer(404)
        )
        return await self._deliver(request, answer, now)

    async def _deliver(self, request: web.Request, answer: SimulatedResponse, now: float) -> web.StreamResponse:
        headers = {**self.limiter.headers(self.options, now), "X-Request-Id": str(uuid.uuid4()), **answer.headers}
        answer = dataclasses.replace(answer, headers=headers)
        self.stats.count_status(answer.status)
        return await deliver(request, answer, self.options.slow_seconds)

    async def elsewhere(self, _: web.Request) -> web.StreamResponse:
        """Answer a client that followed a redirect, which a client with a key must not do."""
        self.stats.count_redirect()
        return web.Response(text="Clients must not follow the redirect to this page.\n")

    def _refusal(self, request: web.Request, now: float) -> SimulatedResponse | None:
        """Return the answer to a refused request."""
        if self.options.refuse_with is not None:
            return json_answer(self.options.refuse_with)
        if not self.knows(request):
            return json_answer(401)
        if refusal := self.limiter.admit(self.options, now):
            self.stats.count_refused(refusal.limit)
            return json_answer(429, _TOO_EARLY[refusal.limit], retry_after(self.options.header_style, refusal.wait))
        self.stats.count_granted(now)
        return None

    def knows(self, request: web.Request) -> bool:
        """Return whether a request has the key."""
        # A header may have bytes that are not text; aiohttp keeps them as surrogates.
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, f"Bearer {self.options.api_key}".encode())

    async def _answer(self, request: web.Request, eval_id: str | None) -> SimulatedResponse:
        """Return the answer for the evaluation, after the latency."""
        if eval_id is None:
            return json_answer(400, messages.NO_UUID)
        attempt = 1
        if has_several_answers(eval_id):  # other evaluations cost no memory
            self._attempts[eval_id] += 1
            attempt = self._attempts[eval_id]
        question = SimulatedRequest(
            eval_id=eval_id,
            attempt=attempt,
            image_bytes=self.options.image_bytes,
            elsewhere=str(request.url.with_host("localhost").with_path(ELSEWHERE)),
        )
        jitter = self.options.jitter_ms * random.uniform(-1, 1)  # noqa: S311  # not used for secrets
        await asyncio.sleep(max(0.0, self.options.latency_ms + jitter) / 1000)
        # A bundle of large images takes 25 ms or more to compress, so a thread does it.
        if self.options.mended and expected_outcome(scenario_of(eval_id)) is Outcome.FAILED:
            return await asyncio.to_thread(documents, question)
        return await asyncio.to_thread(answer_to, question)


def _eval_id_of(request: web.Request) -> str | None:
    try:
        return parse_eval_id(request.match_info["eval_id"])
    except BadEvalId:
        return None


_TOO_EARLY = {SimulatedLimit.RATE: messages.RATE_LIMITED, SimulatedLimit.QUOTA: messages.QUOTA_SPENT}
