import ast
import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from tasks import errors
from tasks.errors import (
    AccountBusy,
    AccountHeld,
    AccountRefused,
    AccountUnknown,
    ArchiveError,
    ArchiveHeld,
    BadBundle,
    BadEvalId,
    BadMessage,
    BadRunName,
    BundleTooLarge,
    ConnectionFailed,
    IntegrityError,
    LeaseLost,
    ManifestChanged,
    RateLimited,
    RunTaken,
    SealingKeyMissing,
    ServiceFailed,
    SpoolError,
    StorageError,
    UnexpectedAnswer,
    WorkersLost,
)

FAMILIES = {"ArchiveError", "InvalidInput", "RetryableError", "BlockedError", "PermanentError"}
EXAMPLES = [
    BadEvalId("nonsense", "expected is a UUID"),
    BadRunName(),
    RunTaken("q3", "2026-11-23T04:00:00.000Z"),
    BadMessage("it has positional arguments"),
    ServiceFailed(503),
    ConnectionFailed("timeout"),
    UnexpectedAnswer("a login page", 200),
    StorageError("create", "timeout"),
    SpoolError("No space left on device"),
    ManifestChanged(),
    RateLimited(1.5),
    AccountRefused(401, wait=30.0),
    AccountRefused(403),
    AccountHeld("401", 30.0),
    AccountBusy(),
    AccountUnknown("kyb"),
    ArchiveHeld("cannot_write", 30.0),
    BundleTooLarge(1024),
    IntegrityError("another size"),
    SealingKeyMissing("2026"),
    WorkersLost(6),
    BadBundle("wrong_crc", "a checksum is wrong"),
    LeaseLost(),
]
named = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def family(of: type[ArchiveError] = ArchiveError) -> Iterator[type[ArchiveError]]:
    """An error class and all of the tree that descend from it; a step may have a finer one for itself."""
    yield of
    for child in of.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


def drawn() -> dict[str, str | None]:
    """The tree in the docstring: each class and its parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    assert errors.__doc__
    for line in errors.__doc__.splitlines():
        found = re.match(r"    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)", line)
        if found:
            depth = len(found["branch"]) // 4
            path[depth:] = [found["name"]]
            parents[found["name"]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = {each.__name__: each.__bases__[0].__name__ for each in family()}
    assert drawn() == classes | {"ArchiveError": None}


def test_every_error_of_the_module_is_in_the_tree() -> None:
    defined = {name for name, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__}
    assert defined == {each.__name__ for each in family()}


def test_there_is_an_example_of_every_error_that_is_raised() -> None:
    assert {type(error).__name__ for error in EXAMPLES} == {each.__name__ for each in family()} - FAMILIES


def test_errors_know_nothing_of_the_rest_of_the_project() -> None:
    tree = ast.parse(inspect.getsource(errors))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_each_cause_is_a_word_of_its_own() -> None:
    causes = [each.__dict__.get("cause") for each in family()]
    assert len(set(causes)) == len(causes)
    assert all(re.fullmatch(r"[a-z_]{5,20}", str(cause)) for cause in causes)


@named
def test_an_error_survives_pickling(error: ArchiveError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(copy) is type(error)
    assert (str(copy), copy.cause, copy.args, vars(copy)) == (str(error), error.cause, error.args, vars(error))


@named
def test_an_error_is_made_of_its_arguments_and_of_all_of_them(error: ArchiveError) -> None:
    names = inspect.signature(type(error)).parameters if vars(error) else ()
    assert error.args == tuple(vars(error)[name] for name in names)
    assert vars(error).keys() == set(names)


@named
def test_an_error_says_one_sentence(error: ArchiveError) -> None:
    sentence = str(error)
    assert sentence.isprintable()
    assert len(sentence) > 20
    assert not sentence.endswith(".")
    assert "(" + repr(error.args)[1:] != sentence


@named
def test_an_error_s_sentence_holds_nothing_but_its_own_arguments_and_words(error: ArchiveError) -> None:
    """Filled with marks, a sentence shows which data it would hold: those that are meant to be shown, no others."""
    marks = [f"mark{n}" if isinstance(each, str) else each for n, each in enumerate(error.args)]
    assert sorted(set(re.findall(r"mark\d", str(type(error)(*marks))))) == {
        BadEvalId: ["mark0", "mark1"],
        BadMessage: ["mark0"],
        ConnectionFailed: ["mark0"],
        UnexpectedAnswer: ["mark0"],
        StorageError: ["mark0", "mark1"],
        SpoolError: ["mark0"],
        AccountHeld: ["mark0"],
        AccountUnknown: ["mark0"],
        ArchiveHeld: ["mark0"],
        IntegrityError: ["mark0"],
        SealingKeyMissing: ["mark0"],
        RunTaken: ["mark0", "mark1"],
        BadBundle: ["mark1"],
    }.get(type(error), [])


def test_a_bad_id_cannot_break_out_of_its_sentence() -> None:
    assert str(BadEvalId("a'b\"\\", "expected is a UUID")).startswith("'a\\'b\"\\\\' is no evaluation ID")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AccountRefused(401, 30), "not accepted"),
        (AccountRefused(403, 30), "may not do this"),
        (BundleTooLarge(1024), "DOCV_MAX_BUNDLE_BYTES"),
        (RateLimited(1.25), "1.2 s"),
        (AccountHeld("quota", 90), "another 90 s"),
        (WorkersLost(6), "6 workers"),
    ],
)
def test_a_sentence_says_what_a_person_needs(error: ArchiveError, words: str) -> None:
    assert words in str(error)


def test_a_bad_bundle_has_the_cause_it_was_given() -> None:
    assert BadBundle("wrong_crc", "a checksum is wrong").cause == "wrong_crc"
    assert BadBundle.cause == "bad_bundle"


@pytest.mark.parametrize("error", [RateLimited(2), AccountRefused(401, 2), AccountHeld("401", 2)])
def test_who_must_wait_is_told_for_how_long(error: ArchiveError) -> None:
    assert vars(error)["wait"] == 2
