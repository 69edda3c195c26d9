"""The conventions that a machine can check: one function per rule, each with an example that breaks it."""

import ast
import configparser
import inspect
import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import prose, repository

ROOT = Path(__file__).parents[1]

# Phrases per 10,000 words, as measured and rounded up. Only lower these numbers.
MOST_PERSONIFIED = {"comments": 1, "texts": 1}
MOST_IDIOMS = {"comments": 3, "texts": 1}

MOST_LINES, FEWEST_LINES = 400, 20
# Only lower these numbers, and remove a module once it has at most 400 lines.
TOO_LONG: dict[str, int] = {}
# Each with its reason. Add none: a module this short usually belongs in another one.
TOO_SHORT = {
    "scripts/console/exit_codes.py": "constants for every command; importing them loads nothing else",
    "worker/clients/errors.py": "the error that all clients share",
}

EMPTY_WORDS = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
ONE_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?=\w))+\.")
PLACEHOLDER = "say here in one sentence"
# No pattern matches its own source. The examples below escape one letter for the same reason: "\x44" is D.
UNDONE = re.compile(r"\b(?:TO[D]O|FIX[M]E)\b")
REGISTRY = re.compile(
    r"\b(?:py[p]i\.org|pythonhos[t]ed\.org|docke[r]\.(?:io|com)|ghc[r]\.io|gc[r]\.io|qua[y]\.io|np[m]js\.(?:org|com))\b"
)
MACHINE = re.compile(r"(?<![\w.])/(?:root|home|work|Users)/[\w.]")

Check = Callable[[Path], list[str]]


class Rule(NamedTuple):
    """A convention, and the proof that its check can fail.

    Attributes:
        check: returns what breaks the rule in the repository at a path.
        example: the files of a small repository that breaks the rule.
        findings: what the check returns for the example.
    """

    check: Check
    example: Mapping[str, str]
    findings: Sequence[str]


RULES: list[Rule] = []


def rule(example: Mapping[str, str], findings: Sequence[str]) -> Callable[[Check], Check]:
    """Register the decorated check."""

    def register(check: Check) -> Check:
        RULES.append(Rule(check, example, findings))
        return check

    return register


# Names and packages


@rule({"tasks/csv_utils.py": "", "tasks/csv.py": ""}, ["tasks/csv_utils.py: 'utils' says nothing"])
def modules_are_named_for_what_they_do(root: Path) -> list[str]:
    paths = [path.relative_to(root) for path in repository.modules(root)]
    words = [(path, word) for path in paths for part in path.with_suffix("").parts for word in part.split("_")]
    return [f"{path}: {word!r} says nothing" for path, word in words if word in EMPTY_WORDS]


@rule(
    {
        "worker/a.py": "class Signer:\n    class _Part: ...\n",
        "tasks/b.py": "def sign():\n    class _Part: ...\n",
        "tasks/c.py": "class Part: ...\n",
    },
    ["_Part: tasks/b.py:2, worker/a.py:2"],
)
def class_names_are_unique(root: Path) -> list[str]:
    places = defaultdict(list)
    for path, node in repository.nodes(root, ast.ClassDef):
        places[node.name].append(f"{path}:{node.lineno}")
    return [f"{name}: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]


@rule(
    {
        "tasks/ledger/ledger.py": "",
        "tests/tasks/ledger/test_ledger_invariants.py": "",
        "tests/tasks/test_ledger.py": "",
        "tests/tasks/test_queue.py": "",
        "tests/faults/stage/test_killed.py": "",
    },
    ["tests/tasks/test_queue.py: no such module in tasks"],
)
def every_test_has_its_module(root: Path) -> list[str]:
    """`test_ledger.py` and `test_ledger_invariants.py` test `ledger`; tests of all modules together are in `faults`."""
    findings = []
    for path in sorted(root.glob("tests/*/**/test_*.py")):
        words = path.stem.removeprefix("test_").split("_")
        home = root / path.parent.relative_to(root / "tests")
        modules = [home / "_".join(words[:length]) for length in range(1, len(words) + 1)]
        if root / "tests" / "faults" not in path.parents and not any(
            module.is_dir() or module.with_suffix(".py").is_file() for module in modules
        ):
            findings.append(f"{path.relative_to(root)}: no such module in {home.relative_to(root)}")
    return findings


@rule({f"tasks/{name}.py": "" for name in "abcde"}, ["tasks: 5 modules outside of packages, at most 4"])
def few_modules_are_outside_of_packages(root: Path) -> list[str]:
    counts = {top: sum(path.parent == root / top for path in repository.modules(root)) for top in ("tasks", "scripts")}
    return [f"{top}: {count} modules outside of packages, at most 4" for top, count in counts.items() if count > 4]


@rule({"tasks/a.py": "", "tasks/b/c.py": ""}, ["tasks/b: has only one module"])
def packages_have_several_modules(root: Path) -> list[str]:
    members = Counter(path.parent for path in [*repository.modules(root), *repository.packages(root)])
    return [f"{path.relative_to(root)}: has only one module" for path in repository.packages(root) if members[path] < 2]


@rule(
    {
        ".importlinter": "[importlinter:contract:a]\ntype = layers\ncontainers = tasks\nexhaustive = true\n"
        "[importlinter:contract:b]\ntype = layers\ncontainers = worker\n"
        "[importlinter:contract:c]\ntype = layers\ncontainers = scripts\nexhaustive = true\nexhaustive_ignores = cli\n"
    },
    [".importlinter: no exhaustive layers for worker", ".importlinter: no exhaustive layers for scripts"],
)
def import_contracts_are_exhaustive(root: Path) -> list[str]:
    """`lint-imports` fails for a package without a layer only if its contract is exhaustive."""
    contracts = configparser.ConfigParser()
    contracts.read(root / ".importlinter")
    exhaustive = {
        contract.get("containers")
        for contract in contracts.values()
        if contract.get("type") == "layers"
        and contract.getboolean("exhaustive", fallback=False)
        and "exhaustive_ignores" not in contract
    }
    return [f".importlinter: no exhaustive layers for {top}" for top in repository.PACKAGES if top not in exhaustive]


# Sizes


@rule(
    {"tasks/a.py": "x = 1\n" * 401, "tasks/b.lua": "-- x\n" * 402, "tasks/c.py": "x = 1\n" * 400},
    ["tasks/a.py: 401 lines, at most 400", "tasks/b.lua: 402 lines, at most 400"],
)
def modules_are_not_too_long(root: Path) -> list[str]:
    bounds = [(path, lines, TOO_LONG.get(path, MOST_LINES)) for path, lines in repository.line_counts(root).items()]
    return [f"{path}: {lines} lines, at most {most}" for path, lines, most in bounds if lines > most]


@rule({"tasks/a.py": "x = 1\n" * 19, "tasks/b.py": "x = 1\n" * 20}, ["tasks/a.py: 19 lines, at least 20"])
def modules_are_not_too_short(root: Path) -> list[str]:
    return [
        f"{path}: {lines} lines, at least {FEWEST_LINES}"
        for path, lines in repository.line_counts(root).items()
        if lines < FEWEST_LINES and path not in TOO_SHORT
    ]


@rule(
    dict.fromkeys([*TOO_LONG, *TOO_SHORT][1:], "x = 1\n" * 20),
    [f"{path}: is listed as an exception without need" for path in [*TOO_LONG, *TOO_SHORT]],
)
def size_exceptions_are_needed(root: Path) -> list[str]:
    lines = repository.line_counts(root)
    needed = {path for path in TOO_LONG if lines.get(path, 0) > MOST_LINES}
    needed |= {path for path in TOO_SHORT if lines.get(path, FEWEST_LINES) < FEWEST_LINES}
    return [f"{path}: is listed as an exception without need" for path in [*TOO_LONG, *TOO_SHORT] if path not in needed]


@rule(
    {"tasks/a.py": "def walk():\n" + "    step()\n" * 50, "tasks/b.py": "def step():\n    walk()\n"},
    ["tasks/a.py:1: walk has 51 lines, at most 50", "the median function has 26.5 lines, expected 5 to 12"],
)
def functions_are_short(root: Path) -> list[str]:
    lengths = {
        f"{path}:{node.lineno}: {node.name}": node.end_lineno - node.lineno + 1
        for path, node in repository.nodes(root, ast.FunctionDef, ast.AsyncFunctionDef)
    }
    findings = [f"{name} has {lines} lines, at most 50" for name, lines in lengths.items() if lines > 50]
    median = statistics.median(lengths.values())
    return findings if 5 <= median <= 12 else [*findings, f"the median function has {median} lines, expected 5 to 12"]


# Texts


@rule({"tasks/a.py": "import os\n", "tasks/b.py": '"""Sign."""\n'}, ["tasks/a.py: has no docstring"])
def modules_have_a_docstring(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}: has no docstring"
        for path in repository.modules(root)
        if not ast.get_docstring(repository.parse(path))
    ]


@rule(
    {
        "tasks/__init__.py": '"""Archive evaluations, e.g. of one account. Wait for others."""',
        "tasks/a/__init__.py": f'"""a: {PLACEHOLDER} what this package is for."""',
        "tasks/b/__init__.py": '"""Read manifest.json and write it."""',
        "tasks/c/d.py": "",
    },
    [f"{package}: its docstring is not one sentence" for package in ("tasks", "tasks/a", "tasks/c")],
)
def package_docstrings_are_one_sentence(root: Path) -> list[str]:
    findings = []
    for package in repository.packages(root):
        file = package / "__init__.py"
        docstring = (ast.get_docstring(repository.parse(file)) or "") if file.is_file() else ""
        if not ONE_SENTENCE.fullmatch(docstring) or PLACEHOLDER in docstring:
            findings.append(f"{package.relative_to(root)}: its docstring is not one sentence")
    return findings


@rule(
    {
        "README.md": "# A `key`\n[a](#a-key) [b](docs/b.md#end-1) [c](docs/b.md#start) [d](docs/d.md) [e](x:e#f)\n",
        "docs/b.md": "## End\n## End\n```\n# Start\n```\n",
    },
    ["README.md: docs/b.md#start leads nowhere", "README.md: docs/d.md leads nowhere"],
)
def links_lead_somewhere(root: Path) -> list[str]:
    findings = []
    for page in repository.pages(root):
        for target in repository.links(page):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in repository.anchors(file)):
                findings.append(f"{page.relative_to(root)}: {target} leads nowhere")
    return findings


def _too_many(root: Path, phrases: re.Pattern[str], passages: Iterable[prose.Passage], most: int) -> list[str]:
    places, frequency = prose.find(phrases, passages, root)
    summary = f"{frequency:.1f} per 10,000 words, at most {most}; {len(places)} places, such as:"
    return [summary, *places[:20]] if frequency > most else []


COMMENTED = {
    "tasks/a.py": '"""S\x6f many\nwords."""\n\nX = "no\x62ody here"\n# All who\n# wait, and one who\n# waits.\n',
    "tasks/b.lua": "local b = 1  -- any\x62ody\n\n-- it is\n-- no key\n",
}
WRITTEN = {
    "README.md": "# Who\x65ver\n\nWe s\x68all see.\n",
    "docs/a.md": "A worker\nwho is\nlate\n",
    ".env.example": "# Keys of\n# our own.\n#KEY=1\n",
    "scripts/page.html.j2": "<p>Some\x62ody</p>\n",
    "tasks/a.py": '"""No\x62ody."""\nHELP = f"{1} is no ID: {\'any\x62ody there\'}"\nKEY = "no\x62ody"\n',
}


@rule(
    COMMENTED,
    [
        f"1333.3 per 10,000 words, at most {MOST_PERSONIFIED['comments']}; 2 places, such as:",
        "tasks/a.py:6: wait, and one who",
        "tasks/b.lua:1: any\x62ody",
    ],
)
def comments_avoid_personification(root: Path) -> list[str]:
    return _too_many(root, prose.PERSONIFIED, prose.comments(root), MOST_PERSONIFIED["comments"])


@rule(
    COMMENTED,
    [
        f"1333.3 per 10,000 words, at most {MOST_IDIOMS['comments']}; 2 places, such as:",
        "tasks/a.py:1: S\x6f many",
        "tasks/b.lua:3: it is",
    ],
)
def comments_avoid_idioms(root: Path) -> list[str]:
    return _too_many(root, prose.IDIOMS, prose.comments(root), MOST_IDIOMS["comments"])


@rule(
    WRITTEN,
    [
        f"1818.2 per 10,000 words, at most {MOST_PERSONIFIED['texts']}; 4 places, such as:",
        "README.md:1: Who\x65ver",
        "docs/a.md:2: who is",
        "scripts/page.html.j2:1: <p>Some\x62ody</p>",
        "tasks/a.py:2: any\x62ody there",
    ],
)
def texts_avoid_personification(root: Path) -> list[str]:
    return _too_many(root, prose.PERSONIFIED, prose.texts(root), MOST_PERSONIFIED["texts"])


@rule(
    WRITTEN,
    [
        f"1363.6 per 10,000 words, at most {MOST_IDIOMS['texts']}; 3 places, such as:",
        ".env.example:1: Keys of",
        "README.md:3: We s\x68all see.",
        "tasks/a.py:2: … is no ID: …",
    ],
)
def texts_avoid_idioms(root: Path) -> list[str]:
    return _too_many(root, prose.IDIOMS, prose.texts(root), MOST_IDIOMS["texts"])


# Texts and files that the repository must not have, or must have


@rule({"docs/a.md": "Done\n\x54ODO: more\n"}, ["docs/a.md:2: \x54ODO"])
def nothing_is_left_undone(root: Path) -> list[str]:
    return repository.matches(root, UNDONE)


@rule({"Dockerfile": "FROM gh\x63r.io/a/b\n"}, ["Dockerfile:1: gh\x63r.io"])
def no_registry_is_named(root: Path) -> list[str]:
    return repository.matches(root, REGISTRY)


@rule({"Makefile": "a:\n\tcd /ho\x6de/a\n"}, ["Makefile:2: /ho\x6de/a"])
def no_path_of_a_machine_is_named(root: Path) -> list[str]:
    return repository.matches(root, MACHINE)


@rule(
    {
        "constraints/a.txt": "--find-links https://mirror.example\n",
        "constraints/b.txt": "click==8.2 \\\n    --hash=sha256:00\nredis==6.4\n",
    },
    ["constraints/a.txt: names an address", "constraints/a.txt: no pins", "constraints/b.txt: no hash for redis==6.4"],
)
def pins_have_a_hash_and_no_address(root: Path) -> list[str]:
    findings = []
    for path in sorted(root.glob("constraints/*.txt")):
        name, text = path.relative_to(root), path.read_text("utf-8")
        pins = re.split(r"\n(?=[\w.-]+==)", "\n" + text)[1:]
        findings += [f"{name}: names an address"] if "://" in text else []
        findings += [f"{name}: no hash for {pin.split()[0]}" for pin in pins if "--hash=sha256:" not in pin]
        findings += [] if pins else [f"{name}: no pins"]
    return findings


@rule({".ci/run": "make check\n"}, [".ci/run: cannot be executed"])
def continuous_integration_can_be_started(root: Path) -> list[str]:
    return [] if os.access(root / ".ci" / "run", os.X_OK) else [".ci/run: cannot be executed"]


@pytest.mark.parametrize("each", RULES, ids=lambda each: each.check.__name__)
def test_the_repository_follows_the_rule(each: Rule) -> None:
    findings = each.check(ROOT)
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize("each", RULES, ids=lambda each: each.check.__name__)
def test_a_rule_reports_the_example_that_breaks_it(each: Rule, tmp_path: Path) -> None:
    for name, text in each.example.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert repository.git(tmp_path, "init", "--quiet").returncode == 0
    assert each.findings
    assert each.check(tmp_path) == each.findings


def test_every_check_is_a_rule() -> None:
    public = {value for name, value in globals().items() if inspect.isfunction(value) and not name.startswith("_")}
    checks = {value for value in public if list(inspect.signature(value).parameters) == ["root"]}
    assert checks == {each.check for each in RULES}
