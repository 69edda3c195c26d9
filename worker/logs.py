"""Configure logging: events with fields, and secrets removed from every line.

Lines go to standard error, as JSON, or in a readable form on a terminal. They contain fixed words, IDs and
numbers, and never a body, a key or a file name from a bundle.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import structlog

_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w\-.~+/]+=*")
_QUERY_PASSWORD = re.compile(r"(?i)(?<=password=)[^&\s\"']+")
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
# A shorter secret may be part of ordinary words.
_SHORTEST_SECRET = 6
_HIDDEN = "[hidden]"
# These log every message, or every request, at INFO.
_VERBOSE_LOGGERS = ("kombu", "amqp", "aiohttp", "botocore", "boto3", "urllib3", "asyncio", "celery.pool")


class Redaction:
    """The last processor of every line, which removes secrets, even from lines of libraries.

    Args:
        secrets: texts that must not appear.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _escaped_forms(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)  # a secret may be part of a longer one

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        """Return the rendered line without secrets."""
        clean = str(line)
        for secret in self._secrets:
            clean = clean.replace(secret, _HIDDEN)
        clean = _QUERY_PASSWORD.sub(_HIDDEN, _BEARER.sub(rf"\1 {_HIDDEN}", clean))
        return _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", clean)


def _escaped_forms(secret: str) -> Iterator[str]:
    """Yield a secret unchanged, and as JSON and Python escape it."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield repr("'" + secret)[2:-1]
    yield json.dumps(repr(secret)[1:-1])[1:-1]


def with_about(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields of ``about``, which is bound to the context, to a line that does not have them.

    Binding each field separately would set and reset a context variable for each, which costs as much as the line.
    """
    for fact, value in event.pop("about", {}).items():
        event.setdefault(fact, value)
    return event


def configure_logs(level: str, secrets: Iterable[str] = ()) -> None:
    """Configure the logging of this process and of all its libraries.

    Args:
        level: lowest level that is logged, such as ``INFO``.
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
    logging.captureWarnings(capture=True)
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    if root.level > logging.DEBUG:
        # It logs every received message, which takes a quarter of its thread's time. At DEBUG the lines are kept.
        logging.getLogger("celery.worker.strategy").setLevel(max(logging.WARNING, root.level))
    # It logs every released message as a warning with a traceback.
    logging.getLogger("celery.app.trace").setLevel(logging.ERROR)
    # The access log of personal data must be complete at any level.
    logging.getLogger("docv.access").setLevel(logging.INFO)
