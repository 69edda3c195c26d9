"""Validate the names of runs, which become parts of Redis keys and of paths in the archive."""

import re

from tasks.errors import BadRunName

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def parse_run(name: object) -> str:
    """Return the name of a run. Every entry point calls this first, and the archive calls it before making a path.

    Args:
        name: a text from outside, or from Redis.

    Raises:
        BadRunName: it is not a valid name.
    """
    if not isinstance(name, str) or not _RUN.fullmatch(name):
        raise BadRunName
    return name
