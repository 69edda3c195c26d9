"""The page about accounts: its example is a valid file, and it names every key of a table and no other."""

import re
from pathlib import Path

from scripts.cli import main
from tasks.model.account import DEFAULT_ACCOUNT
from tests.command_line import load
from worker.config import accounts_file
from worker.config.accounts import load_accounts
from worker.config.settings import Settings

PAGE = (Path(__file__).parents[1] / "docs" / "accounts.md").read_text("utf-8")
EXAMPLE = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_is_loaded_with_its_accounts_and_settings(tmp_path: Path) -> None:
    (example,) = EXAMPLE
    (tmp_path / "secrets").mkdir()
    for name in ("kyb", "kyb-partner"):
        (tmp_path / "secrets" / name).write_text(f"key-of-{name}\n")
    file = tmp_path / "accounts.toml"
    file.write_text(example)
    known = load_accounts(Settings(accounts=file))
    assert known.names == ("kyb", "kyb-partner")
    partner = known.select("kyb-partner")
    assert (partner.shares_rate_with, partner.settings.rate, partner.settings.quota) == ("kyb", 25, 200_000)
    assert partner.settings.environment == "production"
    assert partner.settings.need_api_key().get_secret_value() == "key-of-kyb-partner"


def test_the_page_documents_exactly_the_keys_of_a_table() -> None:
    sentence = re.search(r"^\* A table may have (.*?)\. What it leaves out", PAGE, re.MULTILINE | re.DOTALL)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(accounts_file._KNOWN)


def test_the_page_lists_the_commands_that_take_an_account() -> None:
    takes = {name for name in main.commands if any(each.name == "account" for each in load(name).params)}
    assert all(f"`{name}" in PAGE for name in takes), takes


def test_settings_and_tasks_use_the_same_name_for_the_default_account() -> None:
    assert accounts_file.DEFAULT == DEFAULT_ACCOUNT
