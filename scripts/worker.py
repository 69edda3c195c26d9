"""Serve the queues: a Celery worker with our settings."""

import asyncio
from collections.abc import Sequence

from scripts.parent import end_with_parent
from worker.app import app
from worker.resources import open_resources
from worker.settings import Settings, load_settings


def serve_queues(queues: Sequence[str], *, with_parent: bool) -> None:
    """Run a Celery worker until it is told to stop.

    Raises:
        SettingsError: something is missing or impossible.
        Unreachable: Redis or the bucket does not answer.
    """
    settings = load_settings()
    settings.need_api_key()
    asyncio.run(_see_that_all_answer(settings))
    if with_parent:
        end_with_parent()
    app.worker_main(
        [
            "worker",
            f"--queues={','.join(queues)}",
            f"--loglevel={settings.log_level}",
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


async def _see_that_all_answer(settings: Settings) -> None:
    async with open_resources(settings):
        pass
