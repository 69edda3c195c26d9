"""Explain how to install an optional part of docv-archive, for errors about a missing one.

docv-archive is not on a package index, so `pip install 'docv-archive[parquet]'` finds nothing or an unrelated
package.
"""

from typing import Literal

Extra = Literal["parquet", "tracing"]


def explain_extra(extra: Extra) -> str:
    """Return how to install docv-archive with an extra, as the end of a sentence.

    Args:
        extra: name of the extra in ``pyproject.toml``.
    """
    return (
        f"install docv-archive with the extra `{extra}`, in its clone by `uv tool install --force '.[{extra}]'`; "
        "README.md, Install, has the other ways"
    )
