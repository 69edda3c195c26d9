"""Validate the names of matters, which become parts of paths in the archive and of manifests."""

import re

from tasks.errors import BadMatterName

_MATTER = re.compile(r"[a-z0-9][a-z0-9-]{0,47}", re.ASCII)


def parse_matter(name: object) -> str:
    """Return the name of a matter. Every command calls this first, and the archive calls it before making a path.

    Args:
        name: a text from outside, or from the archive.

    Raises:
        BadMatterName: it is not a valid name.
    """
    if not isinstance(name, str) or not _MATTER.fullmatch(name):
        raise BadMatterName
    return name
