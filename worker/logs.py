"""One shape of log line: events with fields, secrets taken out last.

Lines go to standard error, as JSON, or readable where a person sits at the terminal. What is logged are our own
words, IDs and figures: never a body, a key, a name out of a bundle.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import structlog

_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w\-.~+/]+=*")
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
# A shorter one would black out words that have nothing to do with it.
_SHORTEST_SECRET = 6
_HIDDEN = "[hidden]"
# They tell of every message, or of every request, at their INFO.
_TALKATIVE = ("kombu", "amqp", "aiohttp", "botocore", "boto3", "urllib3", "asyncio", "celery.pool")


class Redaction:
    """The last step of every line: nothing secret leaves, whoever wrote it.

    Args:
        secrets: texts that must not appear.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        written = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _forms(secret)}
        self._secrets = sorted(written, key=len, reverse=True)  # one may begin like another

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        """Return the rendered line without secrets."""
        clean = str(line)
        for secret in self._secrets:
            clean = clean.replace(secret, _HIDDEN)
        return _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", _BEARER.sub(rf"\1 {_HIDDEN}", clean))


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as JSON and Python write it."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield repr("'" + secret)[2:-1]
    yield json.dumps(repr(secret)[1:-1])[1:-1]


def with_about(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Spread what a line is about, bound to the context as ``about``, over the line, where it does not say so itself.

    Bound one by one they would be a variable each to set and reset, and cost as much as the line.
    """
    for fact, value in event.pop("about", {}).items():
        event.setdefault(fact, value)
    return event


def configure_logs(level: str, secrets: Iterable[str] = ()) -> None:
    """Set up logging for this process, ours and that of every library.

    Args:
        level: least severe level that is written, such as ``INFO``.
        secrets: texts that must not appear in any line.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        with_about,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer = (
        structlog.dev.ConsoleRenderer(colors=True)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, Redaction(secrets)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    if root.level > logging.DEBUG:
        # It tells of every message that comes: a quarter of what its thread does, and to whoever wants everything.
        logging.getLogger("celery.worker.strategy").setLevel(max(logging.WARNING, root.level))
    # It tells of every message that is handed back, with a traceback, as a warning.
    logging.getLogger("celery.app.trace").setLevel(logging.ERROR)
    # Who looked at whose pictures is written down, however little else is.
    logging.getLogger("docv.access").setLevel(logging.INFO)
