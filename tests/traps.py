"""A working directory with modules named as those of docv-archive, the standard library and installed packages."""

import importlib.metadata
import sys
from pathlib import Path

_MARK = ".sprung"
_CODE = f"""
open(__file__ + {_MARK!r}, "w").close()
raise SystemExit(__file__ + " was imported")
"""


def lay_traps(folder: Path) -> None:
    """Fill a folder with modules that must not be imported."""
    names = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys() | {"celeryconfig"}
    for name in names - {"scripts"}:
        (folder / f"{name}.py").write_text(_CODE, "utf-8")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text(_CODE, "utf-8")


def sprung_traps(folder: Path) -> list[str]:
    """Return the modules that were imported nevertheless."""
    return [str(path.relative_to(folder)) for path in folder.rglob(f"*{_MARK}")]
