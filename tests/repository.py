"""Read a repository of this layout: its modules, packages, pages and files."""

import ast
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

PACKAGES = ("worker", "tasks", "scripts")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|(?:src|srcset|href)=\"([^\"]+)\"")


def sources(root: Path) -> list[Path]:
    """Return all Python and Lua files of the packages."""
    return sorted(path for top in PACKAGES for path in root.glob(f"{top}/**/*.*") if path.suffix in {".py", ".lua"})


def modules(root: Path) -> list[Path]:
    """Return all Python files of the packages except their ``__init__.py``."""
    return [path for path in sources(root) if path.suffix == ".py" and path.name != "__init__.py"]


def packages(root: Path) -> list[Path]:
    """Return all folders with modules, whether or not they have an ``__init__.py``."""
    return sorted({path.parent for path in sources(root)})


def pages(root: Path) -> list[Path]:
    """Return all Markdown pages at the top and in docs."""
    return sorted([*root.glob("*.md"), *root.glob("docs/*.md")])


def templates(root: Path) -> list[Path]:
    """Return all templates of the packages."""
    return sorted(path for top in PACKAGES for path in root.glob(f"{top}/**/*.j2"))


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text("utf-8"), str(path))


def nodes(root: Path, *kinds: type[ast.AST]) -> Iterator[tuple[Path, Any]]:
    """Yield the nodes of some kinds in all Python files, at any depth, with the file relative to the root."""
    for path in sources(root):
        if path.suffix == ".py":
            yield from ((path.relative_to(root), node) for node in ast.walk(parse(path)) if isinstance(node, kinds))


def line_counts(root: Path) -> dict[str, int]:
    """Return how many lines each Python or Lua file has, except ``__init__.py``."""
    counted = [path for path in sources(root) if path.name != "__init__.py"]
    return {str(path.relative_to(root)): len(path.read_text("utf-8").splitlines()) for path in counted}


def links(page: Path) -> list[str]:
    """Return the targets of a page's links to files and headings of the repository."""
    targets = [unquote("".join(groups)) for groups in _LINK.findall(_without_code(page))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", _without_code(page), re.MULTILINE):
        text = re.sub(r"\]\([^)]*\)", "", heading)  # the target of a link in the heading
        anchor = re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git in a repository; the variables that git sets for a commit hook would point it to another one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def matches(root: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return every match as ``file:line: match``, including files that are not committed yet."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [
        f"{name}:{number}: {found.group()}"
        for name in listed.stdout.split("\0")
        if name and (root / name).is_file()
        for number, line in enumerate((root / name).read_text("utf-8", errors="replace").splitlines(), 1)
        for found in pattern.finditer(line)
    ]


def _without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
