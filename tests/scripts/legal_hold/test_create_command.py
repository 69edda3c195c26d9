"""`legal-hold create` creates a matter once. The former `legal-hold` without a matter is refused."""

import getpass
import json
from pathlib import Path

import pytest

from tests.scripts.legal_hold.conftest import HoldArchive

ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


def test_create_records_the_user_and_the_reason(folder: HoldArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCV_ACTOR")
    result = folder.run_ok("legal-hold", "create", "acme-v-bolt", "--reason", "case 17")
    assert result.stdout.startswith("matter acme-v-bolt was created at ")
    record = json.loads(Path("archive/holds/acme-v-bolt/matter.json").read_text())
    assert (record["schema"], record["matter"], record["reason"]) == (1, "acme-v-bolt", "case 17")
    assert record["created_by"] == getpass.getuser()
    assert "released_at" not in record


def test_a_second_create_is_refused_after_a_release_or_with_another_reason(folder: HoldArchive) -> None:
    create = ("legal-hold", "create", "acme-v-bolt", "--reason")
    first = folder.run_ok(*create, "case 17")
    assert folder.run_ok(*create, "case 17").stdout == first.stdout
    result = folder.run(*create, "case 18")
    assert (result.exit_code, "for another reason: choose another name" in result.stderr) == (2, True)
    folder.run_ok("legal-hold", "release", "acme-v-bolt", "--reason", "settled")
    result = folder.run(*create, "case 17")
    assert (result.exit_code, "its release began at" in result.stderr) == (2, True)


def test_a_damaged_record_is_reported_in_a_sentence(folder: HoldArchive) -> None:
    folder.run_ok("legal-hold", "create", "acme-v-bolt", "--reason", "case 17")
    Path("archive/holds/acme-v-bolt/matter.json").write_text("{}")
    for command in (("create", "acme-v-bolt", "--reason", "x"), ("show", "acme-v-bolt"), ("list",)):
        result = folder.run("legal-hold", *command)
        assert result.exit_code == 3
        assert "the record of matter acme-v-bolt is damaged" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [("acme", "--reason", ""), ("acme",), ("Acme", "--reason", "x"), ("--reason", "x")]
)
def test_create_needs_a_valid_name_and_a_reason(folder: HoldArchive, arguments: tuple[str, ...]) -> None:
    assert folder.run("legal-hold", "create", *arguments).exit_code == 2
    assert not Path("archive").exists()


@pytest.mark.parametrize("arguments", [(ID, "--on"), ("--off", ID), (ID, ID, "--account", "x", "--off")])
def test_the_former_command_without_a_matter_is_refused_with_the_new_commands(
    folder: HoldArchive, arguments: tuple[str, ...]
) -> None:
    result = folder.run("legal-hold", *arguments)
    assert result.exit_code == 2
    for command in ("create MATTER --reason TEXT", "add MATTER ID", "release MATTER --reason TEXT"):
        assert f"legal-hold {command}" in " ".join(result.stderr.split())


def test_the_help_warns_against_personal_data(folder: HoldArchive) -> None:
    text = " ".join(folder.run_ok("legal-hold", "create", "--help").stdout.split())
    assert "do not enter personal data: use the number of the case" in text
