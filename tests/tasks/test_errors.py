import ast
import contextlib
import copy
import inspect
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterator

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
    BadMatterName,
    BadMessage,
    BadRunName,
    BundleTooLarge,
    Charge,
    ConnectionFailed,
    Forbidden,
    IntegrityError,
    LeaseLost,
    ManifestChanged,
    RateLimited,
    RunCancelled,
    RunHeld,
    RunTaken,
    SealingKeyMissing,
    ServiceFailed,
    SpoolError,
    StorageError,
    UnexpectedAnswer,
    WorkersLost,
)

FAMILIES = {"ArchiveError", "InvalidInput", "RetryableError", "BlockedError", "PermanentError"}
MESSAGES: list[tuple[ArchiveError, str]] = [
    (BadEvalId("nonsense", "expected a UUID"), "'nonsense' is not a valid evaluation ID: expected a UUID"),
    (BadMatterName(), "the name of a matter has 1 to 48 lower-case letters, digits and hyphens"),
    (BadRunName(), "the name of a run has 1 to 64 letters, digits, dots, hyphens and underscores"),
    (
        RunTaken("q3", "2026-11-23T04:00:00.000Z"),
        (
            "run q3 began 2026-11-23T04:00:00.000Z with other IDs or evidence, or another --account, --refresh, "
            "--refresh-outcome or --even-if-erased; nothing was queued: choose another name with --run"
        ),
    ),
    (
        RunCancelled("q3"),
        "run q3 was cancelled; nothing was queued: --again starts it again from its first ID",
    ),
    (
        BadMessage("it has positional arguments"),
        "the message does not fit the contract: it has positional arguments",
    ),
    (ServiceFailed(503), "RiskOS answered with status 503"),
    (ConnectionFailed("timeout"), "the connection to RiskOS failed: timeout"),
    (UnexpectedAnswer("a login page", 200), "an unexpected answer with status 200: a login page"),
    (StorageError("create", "timeout"), "the archive could not create an object: timeout"),
    (
        SpoolError("the disk of DOCV_STATE_DIR is full"),
        "large content could not be spooled to disk: the disk of DOCV_STATE_DIR is full",
    ),
    (ManifestChanged(), "another worker wrote this manifest in the meantime"),
    (RateLimited(1.25), "RiskOS asks to slow down; next request in 1.2 s"),
    (AccountRefused(401, wait=30.0), "RiskOS answered 401: the API key is not accepted; next probe in 30 s"),
    (AccountRefused(403), "RiskOS answered 403 to recent requests; next probe in 0 s"),
    (AccountHeld("quota", 90.0), "the account is on hold (quota) for another 90 s"),
    (AccountBusy(), "its account uses its share of this worker's slots"),
    (
        AccountUnknown("kyb"),
        "this worker does not know the account kyb; check that all workers have the same DOCV_ACCOUNTS",
    ),
    (ArchiveHeld("cannot_write", 30.0), "the archive is on hold (cannot_write) for another 30 s"),
    (
        BundleTooLarge(1024),
        "the bundle is larger than 1024 bytes; raise DOCV_MAX_BUNDLE_BYTES and redrive it",
    ),
    (
        IntegrityError("another size"),
        "an object in the archive is not valid: another size; nothing was overwritten",
    ),
    (
        SealingKeyMissing("2026"),
        "an object is sealed with the key '2026': add that key to DOCV_ENCRYPTION_KEYS",
    ),
    (WorkersLost(6), "6 workers died or lost their lease over this evaluation"),
    (Forbidden(Charge.ALL), "RiskOS answered 403: the API key may not read this evaluation"),
    (RunHeld("q3"), "the run q3 is on hold: RiskOS had no documents in its first answers"),
    (BadBundle("wrong_crc", "a checksum is wrong"), "the bundle cannot be read: a checksum is wrong"),
    (LeaseLost(), "the lease ran out; another worker has this evaluation now"),
]
EXAMPLES = [error for error, _ in MESSAGES]
named = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def pickled(error: ArchiveError) -> ArchiveError:
    return pickle.loads(pickle.dumps(error))  # noqa: S301  # the bytes were pickled here


copied = pytest.mark.parametrize("duplicate", [pickled, copy.copy, copy.deepcopy])
Duplicate = Callable[[ArchiveError], ArchiveError]


def family(of: type[ArchiveError] = ArchiveError) -> Iterator[type[ArchiveError]]:
    """Return an error class and all its descendants in the tree; other modules may define more."""
    yield of
    for child in of.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


def tree_in_docstring() -> dict[str, str | None]:
    """Return the tree in the docstring: each class and its parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    assert errors.__doc__
    for line in errors.__doc__.splitlines():
        found = re.match(r"    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?P<description> +\S+ \S+)?", line)
        if found:
            assert found["description"] or found["name"] == "ArchiveError", f"{found['name']} is not described"
            depth = len(found["branch"]) // 4
            path[depth:] = [found["name"]]
            parents[found["name"]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = {each.__name__: each.__bases__[0].__name__ for each in family()}
    assert tree_in_docstring() == classes | {"ArchiveError": None}


def test_every_error_of_the_module_is_in_the_tree() -> None:
    ours = (each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__)
    defined = {each.__name__ for each in ours if issubclass(each, Exception)}
    assert defined == {each.__name__ for each in family()}


def test_there_is_an_example_of_every_error_that_is_raised() -> None:
    assert {type(error).__name__ for error in EXAMPLES} == {each.__name__ for each in family()} - FAMILIES


def test_errors_import_only_the_standard_library() -> None:
    imports: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(errors))):
        if isinstance(node, ast.Import):
            imports |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add(node.module or "")
    assert imports
    assert {name.partition(".")[0] for name in imports} <= sys.stdlib_module_names


def test_each_error_has_its_own_cause() -> None:
    causes = [each.__dict__.get("cause") for each in family()]
    assert len(set(causes)) == len(causes)
    assert all(re.fullmatch(r"[a-z_]{5,20}", str(cause)) for cause in causes)


@copied
@named
def test_an_error_survives_pickling_and_copying(error: ArchiveError, duplicate: Duplicate) -> None:
    same = duplicate(error)
    assert type(same) is type(error)
    assert (str(same), same.cause, same.args, vars(same)) == (str(error), error.cause, error.args, vars(error))


@copied
@named
def test_an_error_raised_with_keywords_survives_pickling_and_copying(error: ArchiveError, duplicate: Duplicate) -> None:
    same = duplicate(type(error)(**vars(error)))
    assert (str(same), same.args, vars(same)) == (str(error), error.args, vars(error))


@copied
def test_attributes_of_an_error_survive_pickling_and_copying(duplicate: Duplicate) -> None:
    error = ServiceFailed(503).as_probe().with_request_id("r-1")
    error.add_note("evaluation 1 of 2")
    same = duplicate(error)
    assert vars(same) == {"status": 503, "is_probe": True, "request_id": "r-1", "__notes__": ["evaluation 1 of 2"]}
    assert (str(same), same.args) == (str(error), (503,))


@pytest.mark.parametrize("error", [error for error in EXAMPLES if error.args], ids=lambda error: type(error).__name__)
def test_an_error_cannot_be_made_without_its_arguments(error: ArchiveError) -> None:
    with pytest.raises(TypeError, match="missing"):
        type(error)()


@named
def test_errors_are_hashable_and_equal_only_themselves(error: ArchiveError) -> None:
    twin = type(error)(*error.args)
    assert {error, twin, error} == {twin, error}
    assert error != twin


def test_the_repr_of_an_error_shows_its_arguments() -> None:
    assert repr(UnexpectedAnswer("a login page", 200)) == "UnexpectedAnswer('a login page', 200)"
    assert repr(AccountRefused(403)) == "AccountRefused(403, 0.0)"
    assert repr(ManifestChanged()) == "ManifestChanged()"


@named
def test_an_error_translated_by_a_context_manager_hides_the_foreign_one(error: ArchiveError) -> None:
    @contextlib.contextmanager
    def translated() -> Iterator[None]:
        try:
            yield
        except OSError:
            raise error from None

    with pytest.raises(type(error)) as caught, translated():
        raise OSError("a foreign text")
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.endswith(f"tasks.errors.{type(error).__name__}: {error}\n")
    assert "a foreign text\n" not in shown


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=[type(error).__name__ for error in EXAMPLES])
def test_an_error_has_its_message(error: ArchiveError, message: str) -> None:
    assert str(error) == message


def test_the_safe_message_of_invalid_input_repeats_nothing_of_the_input() -> None:
    assert BadEvalId("nonsense", "it is empty").safe_message == "an ID is not a valid evaluation ID: it is empty"
    assert BadMessage("it has no body").safe_message == str(BadMessage("it has no body"))


@named
def test_an_error_has_exactly_its_arguments(error: ArchiveError) -> None:
    names = inspect.signature(type(error)).parameters if vars(error) else ()
    assert error.args == tuple(vars(error)[name] for name in names)
    assert vars(error).keys() == set(names)


@named
def test_the_message_of_an_error_is_one_sentence(error: ArchiveError) -> None:
    sentence = str(error)
    assert sentence.isprintable()
    assert len(sentence) > 20
    assert not sentence.endswith(".")
    assert "(" + repr(error.args)[1:] != sentence


@named
def test_the_message_of_an_error_shows_only_arguments_that_may_be_shown(error: ArchiveError) -> None:
    """Each argument is a marker, so the message shows which arguments it repeats."""
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
        RunHeld: ["mark0"],
        IntegrityError: ["mark0"],
        SealingKeyMissing: ["mark0"],
        RunTaken: ["mark0", "mark1"],
        RunCancelled: ["mark0"],
        BadBundle: ["mark1"],
    }.get(type(error), [])


def test_a_bad_id_cannot_break_out_of_its_message() -> None:
    assert str(BadEvalId("a'b\"\\", "expected a UUID")).startswith("'a\\'b\"\\\\' is not a valid evaluation ID")
    assert str(BadEvalId("{why}{0}", "{shown}")) == "'{why}{0}' is not a valid evaluation ID: {shown}"


def test_a_bad_bundle_has_the_cause_it_was_given() -> None:
    assert BadBundle("wrong_crc", "a checksum is wrong").cause == "wrong_crc"
    assert BadBundle.cause == "bad_bundle"


@pytest.mark.parametrize("error", [RateLimited(2), AccountRefused(401, 2), AccountHeld("401", 2)])
def test_a_blocked_error_has_its_waiting_time(error: ArchiveError) -> None:
    assert vars(error)["wait"] == 2
