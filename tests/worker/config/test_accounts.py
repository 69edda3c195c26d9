"""Which account is meant, and what of them must not be seen."""

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


KYB = '[kyb]\napi_key = "key-of-kyb"\nwebhook_secrets = ["kyb:password-of-kyb"]\n'
AML = '[aml]\napi_key = "key-of-aml"\n'


@pytest.mark.parametrize("key", [None, "key-of-ours"])
def test_without_a_file_there_is_the_account_that_the_settings_speak_of(key: str | None) -> None:
    known = accounts(None, api_key=key)
    assert known.names == ("default",)
    assert known.select(None) is known.select("default") is known.find(None)


def test_where_none_is_named_the_default_one_is_meant_or_the_only_one() -> None:
    assert accounts(KYB + AML, api_key="key-of-ours").select(None).name == "default"
    assert accounts(KYB).select(None).name == "kyb"


def test_where_several_could_be_meant_one_has_to_be_named() -> None:
    known = accounts(KYB + AML)
    assert known.find(None) is None
    with pytest.raises(SettingsError, match="name the account, for there is none called default: known are kyb, aml"):
        known.select(None)
    assert known.select("aml").name == "aml"


def test_an_account_that_is_none_is_told_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="no account 'default': known are kyb"):
        accounts(KYB).select("default")


def test_the_secrets_of_all_accounts_are_known_to_whoever_hides_them() -> None:
    known = accounts(KYB + AML, api_key="key-of-ours", webhook_secrets="token-of-ours")
    hidden = known.secrets()
    assert {"key-of-ours", "key-of-kyb", "key-of-aml", "token-of-ours", "password-of-kyb"} <= set(hidden)
    assert len(hidden) == len(set(hidden))


def test_a_secret_that_could_be_guessed_is_told_with_its_account() -> None:
    known = accounts(AML + 'webhook_secrets = ["short"]', api_key="key-of-ours", intake_tokens="short")
    assert known.weak_secrets() == ["DOCV_INTAKE_TOKENS", "webhook_secrets of account aml"]
    assert accounts(None, webhook_secrets="short").weak_secrets() == ["DOCV_WEBHOOK_SECRETS"]
