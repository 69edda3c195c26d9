"""A schedule is validated as a whole, and its first matching rule decides."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.retention.schedule import Action, DocumentFacts, Keep, Schedule, load_schedule, read_schedule
from worker.config.settings import Settings, SettingsError

SELFIES = """
[[rule]]
name = "selfies"
kind = "selfie"
keep_for = "3y"
clock = "last_contact"
"""
IDENTIFICATION = """
[[rule]]
name = "identification"
kind = ["document_front", "document_back"]
environment = "production"
keep_for = "5y"
clock = "account_closed"
then = "review"
keep = "must"
"""


def read(folder: Path, text: str) -> Schedule:
    file = folder / "retention.toml"
    file.write_text(text)
    return read_schedule(file)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(folder, text)
    lines = str(caught.value).splitlines()
    return [line.rpartition("retention.toml")[2].lstrip(": ") for line in lines if "DOCV_RETENTION" in line]


def test_the_first_matching_rule_decides(tmp_path: Path) -> None:
    schedule = read(tmp_path, SELFIES + IDENTIFICATION)

    selfie, front = (
        schedule.find_rule(DocumentFacts(kind, "production", "default")) for kind in ("selfie", "document_front")
    )

    assert selfie is not None
    assert (selfie.name, str(selfie.keep_for), selfie.clock, selfie.then, selfie.keep) == (
        *("selfies", "3y", "last_contact"),
        *(Action.DISPOSE, Keep.MAY),
    )
    assert front is not None
    assert (front.name, front.then, front.keep) == ("identification", Action.REVIEW, Keep.MUST)
    assert schedule.events == {"last_contact", "account_closed"}


@pytest.mark.parametrize(
    "facts",
    [
        DocumentFacts("attachment", "production", "default"),
        DocumentFacts("document_front", "sandbox", "default"),
    ],
)
def test_a_document_that_no_rule_matches_is_kept(tmp_path: Path, facts: DocumentFacts) -> None:
    assert read(tmp_path, SELFIES + IDENTIFICATION).find_rule(facts) is None


@pytest.mark.parametrize(
    ("line", "facts", "is_matched"),
    [
        ('account = "kyb"', {"account": "kyb"}, True),
        ('account = "kyb"', {"account": "default"}, False),
        ('run = ["a", "b"]', {"run": "b"}, True),
        ('run = ["a", "b"]', {"run": None}, False),
        ('evidence = "reason_code:R844"', {"evidence": ("document_type:Military", "reason_code:R844")}, True),
        ('evidence = "reason_code:R844"', {"evidence": ()}, False),
        ('tag = {team = "kyc", region = "eu"}', {"tags": {"team": "kyc", "region": "eu", "source": "x"}}, True),
        ('tag = {team = "kyc", region = "eu"}', {"tags": {"team": "kyc"}}, False),
    ],
)
def test_a_rule_matches_only_documents_that_meet_every_condition(
    tmp_path: Path, line: str, facts: dict[str, object], *, is_matched: bool
) -> None:
    schedule = read(tmp_path, f"{SELFIES}{line}\n")
    defaults = {"kind": "selfie", "environment": "production", "account": "default"}

    assert bool(schedule.find_rule(DocumentFacts(**{**defaults, **facts}))) is is_matched  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "rule is missing"),
        ("rule = []", "expected 1 to 200 rules, a table [[rule]] each; there are 0"),
        ("grace = 'soon'\n" + SELFIES, "grace: expected a number and a unit, such as 5y, 18mo or 90d"),
        ("max_per_run = 0\n" + SELFIES, "max_per_run: expected a number of evaluations, or a share such as 1%"),
        ("max_per_run = '101%'\n" + SELFIES, "max_per_run: expected a number of evaluations, or a share such as 1%"),
        ("keep = 1\n" + SELFIES, "keep is not a key of a schedule"),
        (SELFIES + "colour = 1", "rule 'selfies': colour is not a key of a schedule"),
        (
            SELFIES.replace("3y", "3 years"),
            "rule 'selfies': keep_for: expected a number and a unit, such as 5y, 18mo or 90d",
        ),
        (
            SELFIES.replace('"selfie"', '"selfy"'),
            (
                "rule 'selfies': kind: 'selfy' is not a valid kind: expected document_front, document_back, selfie, "
                "secondary_document, attachment, other"
            ),
        ),
        (
            SELFIES + 'environment = "prod"',
            "rule 'selfies': environment: 'prod' is not a valid environment: expected production, sandbox",
        ),
        (SELFIES.replace("kind = ", "kind = 7 #"), "rule 'selfies': kind: expected a text or a list of texts"),
        (
            SELFIES.replace('"last_contact"', '"Last contact"'),
            "rule 'selfies': clock: expected archived, captured or the name of an event, such as relationship_ended",
        ),
        (SELFIES.replace("clock", "#"), "rule 'selfies': clock is missing: archived, captured or the name of an event"),
        (SELFIES.replace("3y", "forever"), "rule 'selfies': a rule that keeps forever needs no clock"),
        (
            SELFIES.replace('"selfies"', '"erasure"'),
            "rule 'erasure': name: manifests use this name for documents that were erased: choose another one",
        ),
        (SELFIES + SELFIES, "two rules have the name 'selfies'"),
        (
            SELFIES + SELFIES.replace("selfies", "later") + "account = 'kyb'",
            "rule 'later' can never decide: 'selfies' before it matches all its documents",
        ),
        ("[[rule]", "is not TOML (at line 1, column 7)"),
    ],
)
def test_an_invalid_schedule_is_refused_with_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert problems(tmp_path, text) == [sentence]


def test_every_problem_of_a_schedule_is_reported(tmp_path: Path) -> None:
    found = problems(tmp_path, SELFIES.replace("3y", "x") + IDENTIFICATION.replace("5y", "y"))

    assert [each.partition(":")[0] for each in found] == ["rule 'selfies'", "rule 'identification'"]


def test_rules_that_may_match_the_same_document_are_found(tmp_path: Path) -> None:
    schedule = read(
        tmp_path,
        SELFIES
        + IDENTIFICATION
        + '[[rule]]\nname = "kyb"\naccount = "kyb"\nkeep_for = "forever"\n'
        + '[[rule]]\nname = "rest"\nkeep_for = "1y"\nclock = "archived"\n',
    )

    pairs = [(first.name, second.name) for first, second in schedule.find_overlaps()]

    assert pairs == [("selfies", "kyb"), ("identification", "kyb")], "a rule for all other documents is not an overlap"


@pytest.mark.parametrize(
    ("limit", "total", "most"), [("'1%'", 50, 100), ("'1%'", 20_000, 200), ("7", 20_000, 7), ("'2.5%'", 10_000, 250)]
)
def test_an_unattended_run_is_limited_by_a_number_or_a_share(tmp_path: Path, limit: str, total: int, most: int) -> None:
    assert read(tmp_path, f"max_per_run = {limit}\n{SELFIES}").max_evaluations(total) == most


def test_load_schedule_raises_with_the_path_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    settings = Settings(api_key=SecretStr("k"), retention=tmp_path / "none.toml")

    with pytest.raises(SettingsError, match=r"DOCV_RETENTION: .*none\.toml cannot be read: No such file"):
        load_schedule(settings)


def test_load_schedule_returns_none_without_a_setting() -> None:
    assert load_schedule(Settings()) is None
