"""Accounts are found by name, and ``secrets`` returns the secrets of all of them."""

from pathlib import Path

import pytest

from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, SettingsError


def accounts(text: str | None, **values: object) -> Accounts:
    if text is not None:
        file = Path("accounts.toml")
        file.write_text(text)
        file.chmod(0o600)
        values["accounts"] = file
    return load_accounts(Settings(**values))  # type: ignore[arg-type]  # pydantic checks them


KYB = '[kyb]\napi_key = "key-of-kyb"\nwebhook_secrets = ["kyb:a-password-of-kyb"]\n'
AML = '[aml]\napi_key = "key-of-aml"\n'


@pytest.mark.parametrize("key", [None, "key-of-ours"])
def test_the_settings_describe_the_only_account_if_there_is_no_accounts_file(key: str | None) -> None:
    known = accounts(None, api_key=key)
    assert known.names == ("default",)
    assert known.select(None) is known.select("default") is known.find(None)


def test_find_without_a_name_returns_the_default_or_the_only_account() -> None:
    assert accounts(KYB + AML, api_key="key-of-ours").select(None).name == "default"
    assert accounts(KYB).select(None).name == "kyb"


def test_select_without_a_name_fails_if_there_are_several_accounts() -> None:
    known = accounts(KYB + AML)
    assert known.find(None) is None
    with pytest.raises(SettingsError, match="name an account: no account is called default: known are kyb, aml"):
        known.select(None)
    assert known.select("aml").name == "aml"


def test_select_of_an_unknown_account_fails_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="no account 'default': known are kyb"):
        accounts(KYB).select("default")


def test_secrets_returns_the_secrets_of_all_accounts() -> None:
    known = accounts(KYB + AML, api_key="key-of-ours", webhook_secrets="a-token-of-our-own")
    secrets = known.secrets()
    assert {"key-of-ours", "key-of-kyb", "key-of-aml", "a-token-of-our-own", "a-password-of-kyb"} <= set(secrets)
    assert len(secrets) == len(set(secrets))
