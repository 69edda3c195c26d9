"""`settings` shows the effective settings with their sources, and no secret."""

import json
from pathlib import Path

import pytest

from tests.commands import KEY, Shell
from worker.config.settings import Settings

SECRET = "canary-5b0e7d31-secret"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / ".env").write_text(
        f"DOCV_RATE=3\nDOCV_BURST=7\nDOCV_OPERATORS=jane:{SECRET}\nDOCV_ATTEMPTS=\n", "utf-8"
    )
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "docv_redis_url").write_text(f"redis://docv:{SECRET}@redis.example:6379/0", "utf-8")
    (credentials / "docv_burst").write_text("9", "utf-8")
    return Shell(tmp_path, {"DOCV_API_KEY": KEY, "DOCV_RATE": "2.5", "CREDENTIALS_DIRECTORY": str(credentials)})


async def test_each_setting_has_its_effective_value_and_its_source(shell: Shell) -> None:
    finished = await shell.run("settings", "--json")
    assert (finished.code, finished.err) == (0, "")
    shown = json.loads(finished.out)
    assert [*shown] == [f"DOCV_{name.upper()}" for name in Settings.model_fields]
    found = {name: (each["value"], each["source"]) for name, each in shown.items()}
    assert found["DOCV_RATE"] == ("2.5", "environment")
    assert found["DOCV_BURST"] == ("7", ".env")
    assert found["DOCV_ATTEMPTS"] == ("6", "default")
    assert found["DOCV_REDIS_URL"] == ("(hidden)", str(shell.folder / "credentials" / "docv_redis_url"))
    assert found["DOCV_VIEWERS"] == (None, "default")
    assert found["DOCV_RISKOS_URL"] == (
        "https://riskos.sandbox.socure.com",
        "default of the sandbox environment",
    )
    assert found["DOCV_DAILY_QUOTA"] == ("1000", "default of the sandbox environment")


@pytest.mark.parametrize("options", [(), ("--json",), ("--set",)])
async def test_secrets_are_not_shown(shell: Shell, options: tuple[str, ...]) -> None:
    shell.settings["HTTPS_PROXY"] = f"http://jane:{SECRET}@proxy.example:3128"
    out = (await shell.run("settings", *options)).out
    assert "DOCV_API_KEY" in out
    assert "DOCV_PROXY" in out
    assert not {SECRET, KEY} & {each for each in (SECRET, KEY) if each in out}


async def test_only_settings_that_are_set_are_listed_with_the_set_option(shell: Shell) -> None:
    lines = (await shell.run("settings", "--set")).out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("DOCV_API_KEY", "DOCV_REDIS_URL", "DOCV_OPERATORS", "DOCV_RATE", "DOCV_BURST"),
    ]
    assert lines[3].split() == ["DOCV_RATE", "2.5", "(environment)"]


async def test_an_account_shows_its_own_values_and_the_general_output_mentions_accounts(shell: Shell) -> None:
    (shell.folder / "accounts.toml").write_text(
        f'[kyb]\napi_key = "{SECRET}"\nenvironment = "production"\nrate = 25\nleave_daily = 5\n', "utf-8"
    )
    (shell.folder / "accounts.toml").chmod(0o600)
    shell.settings["DOCV_ACCOUNTS"] = "accounts.toml"
    plain = await shell.run("settings", "--json")
    assert json.loads(plain.out)["DOCV_RATE"] == {"value": "2.5", "source": "environment"}
    assert "accounts in DOCV_ACCOUNTS override some of these; --account NAME shows the settings of one" in plain.err
    finished = await shell.run("settings", "--account", "kyb", "--json")
    found = {name: (each["value"], each["source"]) for name, each in json.loads(finished.out).items()}
    own = "account kyb of DOCV_ACCOUNTS"
    assert found["DOCV_RATE"] == ("25.0", own)
    assert (found["DOCV_LEAVE_DAILY"], found["DOCV_API_KEY"]) == (("5", own), ("(hidden)", own))
    assert found["DOCV_BURST"] == ("7", ".env")
    assert found["DOCV_RISKOS_URL"] == ("https://riskos.socure.com", "default of the production environment")
    assert (finished.err, SECRET in finished.out) == ("", False)
    unknown = await shell.run("settings", "--account", "nobody")
    assert (unknown.code, "no account 'nobody': known are default, kyb" in unknown.err) == (2, True)


async def test_an_invalid_setting_is_reported_in_one_sentence(shell: Shell) -> None:
    shell.settings["DOCV_RATE"] = "fast"
    finished = await shell.run("settings")
    assert finished.code == 2
    assert "DOCV_RATE: " in finished.err
