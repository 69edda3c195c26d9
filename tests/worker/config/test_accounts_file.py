"""The accounts file is read, its problems are reported in one line each, and no key is ever repeated."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.config.accounts_file import DEFAULT, MOST, MOST_BYTES, AccountSettings, read_accounts
from worker.config.settings import Settings, SettingsError

KEY = "s3cr3t-k3y-0f-kyb"
OURS = "s3cr3t-k3y-0f-0urs"


def settings(**values: object) -> Settings:
    return Settings(**values)  # type: ignore[arg-type]  # pydantic checks them


def write_file(text: str, mode: int = 0o600, name: str = "accounts.toml") -> Path:
    file = Path(name)
    file.write_text(text)
    file.chmod(mode)
    return file


def read(text: str, **values: object) -> dict[str, AccountSettings]:
    known, warnings = read_accounts(write_file(text), settings(**values))
    assert warnings == ()
    return known


def problems_of(text: str, **values: object) -> list[str]:
    """Return the problems of a file, without its name."""
    with pytest.raises(SettingsError) as caught:
        read_accounts(write_file(text), settings(**values))
    assert KEY not in str(caught.value)
    return [line.removeprefix("DOCV_ACCOUNTS: accounts.toml") for line in caught.value.lines]


def test_a_table_may_have_every_setting_of_an_account() -> None:
    known = read(
        f"""
        [kyb]
        api_key = "{KEY}"
        environment = "production"
        riskos_url = "https://riskos.example/"
        api_version = "2025-01-01.orion"
        client_cert = "tls/client.pem"
        client_key = "/etc/tls/client.key"
        rate = 25
        burst = 2
        daily_quota = 5000
        backfill_share = 0.5
        live_reserve = 0.25
        leave_rate = 2
        leave_daily = 50
        webhook_secrets = ["a-token-of-the-kyb", "kyb:a-password-of-kyb"]
        """
    )
    found = known["kyb"].settings
    assert found.need_api_key().get_secret_value() == KEY
    assert (found.environment, found.base_url, found.quota) == ("production", "https://riskos.example", 5000)
    assert (found.client_cert, found.client_key) == (Path("tls/client.pem"), Path("/etc/tls/client.key"))
    assert (found.rate, found.burst, found.backfill_share, found.live_reserve) == (25.0, 2, 0.5, 0.25)
    assert (found.leave_rate, found.leave_daily) == (2.0, 50)
    assert [secret.get_secret_value() for secret in found.webhook_secrets] == [
        "a-token-of-the-kyb",
        "kyb:a-password-of-kyb",
    ]


def test_a_table_inherits_the_settings_except_the_key() -> None:
    known = read(
        f'[kyb]\napi_key = "{KEY}"',
        api_key=OURS,
        rate=7,
        environment="production",
        webhook_secrets="a-token-of-our-own",
    )
    found = known["kyb"].settings
    assert (found.rate, found.environment, len(found.webhook_secrets)) == (7, "production", 1)
    assert found.need_api_key().get_secret_value() == KEY
    assert known[DEFAULT].settings.need_api_key().get_secret_value() == OURS


def test_a_certificate_of_a_table_does_not_inherit_the_client_key() -> None:
    known = read(f'[kyb]\napi_key = "{KEY}"\nclient_cert = "kyb.pem"', client_cert="ours.pem", client_key="ours.key")
    assert known["kyb"].settings.client_key is None


def test_a_key_may_be_in_a_file_next_to_the_accounts_file(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    write_file(f"{KEY}\n", name="secrets/kyb")
    file = write_file('[kyb]\napi_key_file = "kyb"', name="secrets/accounts.toml")
    known, _ = read_accounts(file, settings())
    assert known["kyb"].settings.need_api_key().get_secret_value() == KEY


def test_the_default_account_exists_if_it_has_a_key() -> None:
    table = f'[kyb]\napi_key = "{KEY}"'
    assert list(read(table)) == ["kyb"]
    assert list(read(table, api_key=OURS)) == [DEFAULT, "kyb"]
    assert list(read(f'[default]\napi_key = "{KEY}"')) == [DEFAULT]


def test_accounts_that_share_a_rate_take_it_from_the_named_account() -> None:
    known = read(
        f'[kyb]\napi_key = "{KEY}"\nshares_rate_with = "aml"\n'
        '[aml]\napi_key = "b"\nrate = 3\ndaily_quota = 9\nburst = 2\nleave_rate = 4\nleave_daily = 5'
    )
    assert known["kyb"].shares_rate_with == "aml"
    assert known["aml"].shares_rate_with is None
    assert (known["kyb"].settings.rate, known["kyb"].settings.quota, known["kyb"].settings.burst) == (3, 9, 2)
    assert (known["kyb"].settings.leave_rate, known["kyb"].settings.leave_daily) == (4, 5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("rte = 4", " [kyb]: rte is not a key of an account; did you mean rate?"),
        ("redis_url = 'x'", " [kyb]: redis_url is not a key of an account"),
        (f"'{KEY}' = 4", " [kyb]: something is not a key of an account"),
        ("rate = 0", " [kyb]: rate: Input should be greater than 0"),
        ("rate = nan", " [kyb]: rate: Input should be less than or equal to 10000"),
        ("leave_rate = -1", " [kyb]: leave_rate: Input should be greater than or equal to 0"),
        ("leave_daily = -1", " [kyb]: leave_daily: Input should be greater than or equal to 0"),
        ("shares_rate_with = 'default'\nleave_rate = 3", " [kyb]: rate, burst, quota or what is left to others differ"),
        ("rate = true", " [kyb]: rate: it cannot be true or false"),
        ("burst = 1.5", " [kyb]: burst: Input should be a valid integer, got a number with a fractional part"),
        ("environment = 'test'", " [kyb]: environment: Input should be 'production' or 'sandbox'"),
        (
            "riskos_url = 'http://riskos.example'",
            " [kyb]: riskos_url: plain http would expose the API key to the network",
        ),
        ("webhook_secrets = ['two words']", " [kyb]: webhook_secrets: each must be one word of visible ASCII"),
        ("webhook_secrets = ['short']", " [kyb]: webhook_secrets: each token or password must have at least 16"),
        ("webhook_secrets = 'a-token'", " [kyb]: webhook_secrets: Input should be a valid tuple"),
        ("api_key_file = 'x'", " [kyb]: expected either api_key or api_key_file, as a text"),
        ("shares_rate_with = 'nobody'", " [kyb]: shares_rate_with must name another account"),
        ("shares_rate_with = 'kyb'", " [kyb]: shares_rate_with must name another account"),
        ("shares_rate_with = 4", " [kyb]: shares_rate_with must name another account"),
        (
            "shares_rate_with = 'default'\nrate = 9",
            " [kyb]: rate, burst, quota or what is left to others differ from those of default",
        ),
        (
            "shares_rate_with = 'default'\nenvironment = 'production'",
            " [kyb]: rate, burst, quota or what is left to others differ",
        ),
        ("[kyb.more]\nx = 1", " [kyb]: more is not a key of an account"),
    ],
)
def test_a_problem_in_a_table_is_reported_in_one_line(more: str, message: str) -> None:
    (line,) = problems_of(f'[kyb]\napi_key = "{KEY}"\n{more}', api_key=OURS)
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": expected 1 to 100 accounts, a table [name] each; there are 0"),
        (f'[kyb\napi_key = "{KEY}"', ": it is not TOML (at line 1, column 5)"),
        ("x = " + "[" * 5_000, ": it is not TOML"),
        (f'api_key = "{KEY}"', ": there is a key outside of a table; each account is a table [name]"),
        (f'[KYB]\napi_key = "{KEY}"', ": the name of an account has 1 to 32 lower-case letters, digits and hyphens"),
        (f'["a@backfill"]\napi_key = "{KEY}"', ": the name of an account has 1 to 32 lower-case letters, digits"),
        (f'["{"a" * 33}"]\napi_key = "{KEY}"', ": the name of an account has 1 to 32 lower-case letters, digits"),
        (f'[archive]\napi_key = "{KEY}"', " [archive]: this name is reserved"),
        (f'[default]\napi_key = "{KEY}"', " [default]: DOCV_API_KEY describes this account already"),
        ("[kyb]\nrate = 4", " [kyb]: expected either api_key or api_key_file, as a text"),
        ("[kyb]\napi_key = 4", " [kyb]: expected either api_key or api_key_file, as a text"),
        ('[kyb]\napi_key = "two words"', " [kyb]: its key must be one word of visible ASCII characters"),
        ('[kyb]\napi_key_file = "nowhere"', " [kyb]: nowhere cannot be read: No such file or directory"),
        ('[kyb]\napi_key_file = "a\\u0000b"', " [kyb]: the file name is not a valid path"),
        (f'[kyb]\napi_key = "{OURS}"', ": default and kyb have the same key; a key is one account"),
        ("".join(f'[a{n}]\napi_key = "{n}"\n' for n in range(MOST + 1)), ": expected 1 to 100 accounts"),
        ("#" * (MOST_BYTES + 1), ": accounts.toml is larger than 64 KiB"),
    ],
)
def test_a_problem_in_a_file_is_reported_in_one_line(text: str, message: str) -> None:
    (line,) = problems_of(text, api_key=OURS)
    assert line.startswith(message)


def test_an_account_cannot_share_a_shared_rate() -> None:
    text = '[a]\napi_key = "a"\n[b]\napi_key = "b"\nshares_rate_with = "a"\n[c]\napi_key = "c"\nshares_rate_with = "b"'
    (line,) = problems_of(text)
    assert line == " [c]: shares_rate_with must name another account, one that shares with none itself"


def test_all_problems_are_reported_together() -> None:
    lines = problems_of('[a]\nrate = 0\n[b]\napi_key = "b"\nburst = 0')
    assert [line.split(":")[0] for line in lines] == [" [a]", " [a]", " [b]"]


@pytest.mark.parametrize("data", [b"\xff\xfe", b'[kyb]\napi_key = "\xff"'])
def test_a_file_that_is_not_text_is_reported_in_one_line(data: bytes) -> None:
    Path("accounts.toml").write_bytes(data)
    with pytest.raises(SettingsError, match=r"is not text in UTF-8$"):
        read_accounts(Path("accounts.toml"), settings())


def test_a_missing_file_is_reported_in_one_line() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read: No such file or directory$"):
        read_accounts(Path("nowhere.toml"), settings())


def test_a_world_readable_file_is_a_warning() -> None:
    file = write_file(f'[kyb]\napi_key = "{KEY}"', mode=0o644)
    _, (warning,) = read_accounts(file, settings())
    assert warning == "every user of this machine can read accounts.toml; run chmod o-r"


def test_the_repr_of_an_account_has_no_key() -> None:
    known = read(f'[kyb]\napi_key = "{KEY}"')
    assert isinstance(known["kyb"].settings.api_key, SecretStr)
    assert KEY not in repr(known)
