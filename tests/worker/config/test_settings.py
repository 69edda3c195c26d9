import base64
import os
import pickle
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from worker.config import setting_files
from worker.config.settings import Settings, SettingsError, load_settings

KEY = "s3cr3t-k3y"
PASSWORD = "s3cr3t-p4ssw0rd"
SEALING = "c2VhbGluZy1rZXktb2YtMzItYnl0ZXMtaW4tdGVzdHM="
TOKEN = "s3cr3t-w3bh00k-t0k3n"
PAIRED = "s3cr3t-w3bh00k-p4ssw0rd"
PRODUCER = "s3cr3t-pr0duc3r-t0k3n"
RECORDS = "s3cr3t-r3c0rds-t0k3n"
OPERATOR = "s3cr3t-0p3r4t0r-p4ssw0rd"
VIEWER = "s3cr3t-v13w3r-p4ssw0rd"
MONITORING = "s3cr3t-m0n1t0r1ng-t0k3n"
HOOK = "https://hooks.example/services/s3cr3t-h00k"
SIGNING = "s3cr3t-s1gn1ng-k3y"
REDIS = f"rediss://user:{PASSWORD}@queue.example:6379/2"

ALL = {
    "DOCV_ENVIRONMENT": "production",
    "DOCV_API_KEY": KEY,
    "DOCV_RISKOS_URL": "https://riskos.example/base",
    "DOCV_API_VERSION": "2025-01-01.orion",
    "DOCV_ACCOUNTS": "/etc/docv-archive/accounts.toml",
    "DOCV_PROXY": f"http://user:{PASSWORD}@proxy.example:3128",
    "DOCV_CLIENT_CERT": "/etc/tls/client.pem",
    "DOCV_CLIENT_KEY": "/etc/tls/client.key",
    "DOCV_ARCHIVE_URL": "s3://bucket/some/prefix",
    "DOCV_S3_ENDPOINT": "http://127.0.0.1:9000",
    "DOCV_S3_TAGS": "after_put",
    "DOCV_S3_CHECKSUM": "off",
    "DOCV_REDIS_URL": REDIS,
    "DOCV_REDIS_REPLICAS": "1",
    "DOCV_BROKER_URL": f"amqps://user:{PASSWORD}@rabbit.example:5671/docv",
    "DOCV_STATE_DIR": "/var/lib/docv archive",
    "DOCV_WEBHOOK_SECRETS": f"{TOKEN},riskos:{PAIRED}",
    "DOCV_INTAKE_TOKENS": f"{PRODUCER},another-{PRODUCER}",
    "DOCV_RECORDS_TOKENS": RECORDS,
    "DOCV_OPERATORS": f"operator:{OPERATOR}",
    "DOCV_VIEWERS": f"viewer:{VIEWER},{MONITORING}",
    "DOCV_NOTIFY_URL": HOOK,
    "DOCV_NOTIFY_SECRET": SIGNING,
    "DOCV_RATE": "12.5",
    "DOCV_BURST": "3",
    "DOCV_DAILY_QUOTA": "5000",
    "DOCV_BACKFILL_SHARE": "0.25",
    "DOCV_CONCURRENCY": "8",
    "DOCV_ATTEMPTS": "2",
    "DOCV_RETRY_SECONDS": "30.5",
    "DOCV_SETTLE_SECONDS": "0",
    "DOCV_ASK_WITHOUT_DOCV": "1",
    "DOCV_EXPLAIN": "all",
    "DOCV_RESTRICTED": "archive",
    "DOCV_DRAIN_SECONDS": "0",
    "DOCV_BACKLOG": "5000",
    "DOCV_LEASE_SECONDS": "45",
    "DOCV_PUT_SECONDS": "30",
    "DOCV_MAX_BUNDLE_BYTES": "1024",
    "DOCV_MAX_UNPACKED_BYTES": "2048",
    "DOCV_ACTOR": "alice",
    "DOCV_MAX_DOCUMENTS": "5",
    "DOCV_MAX_DOCUMENT_BYTES": "4096",
    "DOCV_MAX_RATIO": "100",
    "DOCV_MEMORY_BYTES": "2097152",
    "DOCV_NO_DOCUMENTS_TEXTS": "Nothing here|No, nothing",
    "DOCV_GATEWAY_TEXTS": "Not at this gateway|",
    "DOCV_KIND_PATTERNS": "secondary_document:*statement*, selfie:user_uploaded/liveness/*",
    "DOCV_KMS_KEY_ID": "arn:aws:kms:eu-central-1:1:key/2",
    "DOCV_SSE": "aws:kms",
    "DOCV_STORAGE_CLASS": "STANDARD_IA",
    "DOCV_TAGS": "team=kyc,retention=7 y",
    "DOCV_LIVE_RESERVE": "0.2",
    "DOCV_LEAVE_RATE": "2.5",
    "DOCV_LEAVE_DAILY": "100",
    "DOCV_RETENTION": "/etc/docv-archive/retention.toml",
    "DOCV_LOCK_MODE": "GOVERNANCE",
    "DOCV_LOCK_DAYS": "2555",
    "DOCV_ENCRYPTION_KEYS": f"2026:{SEALING},2025:{'QUFB' * 10}QUE=",
    "DOCV_PATH_PREFIX": "/ops/docv",
    "DOCV_METRICS_HOST": "10.0.0.7",
    "DOCV_METRICS_PORT": "9464",
    "DOCV_CELERY_EVENTS": "true",
    "DOCV_STRICT": "true",
    "DOCV_TRACING": "true",
    "DOCV_LOG_LEVEL": "WARNING",
}
"""A value for every setting that differs from its default."""


def with_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def problems_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[str, ...]:
    """Return the error lines of a process that starts with these variables."""
    with_environment(monkeypatch, **variables)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


# -- sources


@pytest.mark.parametrize(
    "path", ["docv", "//docv", "/a//b", "/a b", "/a/../b", "/page", "/webhooks/x", "/docv?x", "/é"]
)
def test_an_invalid_or_reserved_path_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (line,) = problems_with(monkeypatch, DOCV_PATH_PREFIX=path)
    assert line.startswith("DOCV_PATH_PREFIX: ")
    assert line.endswith("such as /docv") or "expected a path such as /docv" in line


@pytest.mark.parametrize(("path", "prefix"), [("/docv/", "/docv"), ("/", None), ("/a/b-c_d.e", "/a/b-c_d.e")])
def test_a_trailing_slash_of_the_path_prefix_is_removed(
    monkeypatch: pytest.MonkeyPatch, path: str, prefix: str | None
) -> None:
    with_environment(monkeypatch, DOCV_PATH_PREFIX=path)
    assert load_settings().path_prefix == prefix


def test_settings_have_their_documented_defaults(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.environment, settings.api_key, settings.redis_url) == ("sandbox", None, None)
    assert (settings.rate, settings.burst, settings.backfill_share) == (10.0, 1, 0.9)
    assert (settings.concurrency, settings.attempts, settings.settle_seconds) == (64, 6, 15.0)
    assert (settings.max_bundle_bytes, settings.max_unpacked_bytes) == (256 << 20, 1 << 30)
    assert settings.max_documents == 1000
    assert settings.archive_url == (tmp_path / "archive").as_uri()
    assert settings.tags == {}


def test_every_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings()
    with_environment(monkeypatch, **ALL)
    settings = load_settings()
    assert [name for name in Settings.model_fields if getattr(settings, name) == getattr(default, name)] == []
    assert settings.no_documents_texts == ("Nothing here", "No, nothing")
    assert settings.gateway_texts == ("Not at this gateway",)
    assert settings.kind_patterns == ("secondary_document:*statement*", "selfie:user_uploaded/liveness/*")
    assert settings.tags == {"team": "kyc", "retention": "7 y"}
    assert settings.state_dir == Path("/var/lib/docv archive")


def test_variables_in_lower_case_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, docv_rate="3")
    assert load_settings().rate == 3


def test_settings_are_read_from_the_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"# ours\nDOCV_RATE=4\nDOCV_API_KEY='{KEY}'\nOTHER_PROGRAM=7\n")
    settings = load_settings()
    assert settings.rate == 4
    assert settings.need_api_key().get_secret_value() == KEY


def test_the_environment_overrides_the_dotenv_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DOCV_RATE=4\n")
    with_environment(monkeypatch, DOCV_RATE="5")
    assert load_settings().rate == 5


def test_a_command_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCV_RATE="5")
    assert load_settings(rate=6).rate == 6


def test_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "docv_api_key").write_text(f"{KEY}\n")
    monkeypatch.setattr(setting_files, "_RUN_SECRETS", secrets)  # /run belongs to the machine
    assert load_settings().need_api_key().get_secret_value() == KEY


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCV_API_KEY="", DOCV_RATE="", DOCV_TAGS="")
    settings = load_settings()
    assert (settings.api_key, settings.rate, settings.tags) == (None, 10.0, {})


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError):
        Settings().rate = 5  # type: ignore[misc]  # the assignment must fail


# -- one line for each problem


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DOCV_ENVIRONMENT", "prod", "'production' or 'sandbox'"),
        ("DOCV_API_KEY", "two words", "one word of visible ASCII"),
        ("DOCV_API_KEY", "newline\n", "one word of visible ASCII"),
        ("DOCV_API_KEY", "schlüssel", "one word of visible ASCII"),
        ("DOCV_RISKOS_URL", "riskos.example", "https://riskos.socure.com"),
        ("DOCV_RISKOS_URL", "ftp://riskos.example", "https://riskos.socure.com"),
        ("DOCV_RISKOS_URL", "https://", "https://riskos.socure.com"),
        ("DOCV_RISKOS_URL", "http://riskos.example", "plain http would expose the API key"),
        ("DOCV_RISKOS_URL", "http://127.0.0.1.example", "plain http would expose the API key"),
        ("DOCV_RISKOS_URL", "http://localhost@riskos.example", "plain http would expose the API key"),
        ("DOCV_RISKOS_URL", "https://user:word@riskos.example", "without user"),
        ("DOCV_RISKOS_URL", "https://riskos.example/?a=b", "without user, query"),
        ("DOCV_RISKOS_URL", "https://riskos.example/#a", "without user, query and fragment"),
        ("DOCV_RISKOS_URL", "https://[::1", ""),
        ("DOCV_RISKOS_URL", "https://riskos.example:port", ""),
        ("DOCV_ARCHIVE_URL", "bucket", "s3://bucket/prefix or file:///path"),
        ("DOCV_ARCHIVE_URL", "s3:///prefix", "s3://bucket/prefix"),
        ("DOCV_ARCHIVE_URL", "file://archive", "file:///path"),
        ("DOCV_ARCHIVE_URL", "https://bucket.example", "s3://bucket/prefix"),
        ("DOCV_ARCHIVE_URL", "/var/lib/archive", "for this folder file:///var/lib/archive"),
        ("DOCV_ARCHIVE_URL", "~/archive", "s3://bucket/prefix or file:///path"),
        ("DOCV_ARCHIVE_URL", "gs://bucket", "gs:// is neither a folder nor an S3"),
        ("DOCV_ARCHIVE_URL", "az://container/x", "az:// is neither a folder nor an S3"),
        ("DOCV_ARCHIVE_URL", "arn:aws:s3:::bucket", "an ARN cannot be used"),
        ("DOCV_ARCHIVE_URL", "s3://arn:aws:s3:eu-central-1:1:accesspoint/x", "an ARN cannot be used"),
        ("DOCV_ARCHIVE_URL", "s3://bucket//a", "no two slashes in a row"),
        ("DOCV_ARCHIVE_URL", "s3://bucket/a//b", "no two slashes in a row"),
        ("DOCV_ARCHIVE_URL", "s3://bucket/a/../b", "no part of dots"),
        ("DOCV_ARCHIVE_URL", "s3://bucket/p?x=y", "without ? and #"),
        ("DOCV_ARCHIVE_URL", "s3://bucket/p#x", "without ? and #"),
        ("DOCV_ARCHIVE_URL", "s3://bucket:9000/p", "a bucket has 3 to 255"),
        ("DOCV_ARCHIVE_URL", f"s3://user:{PASSWORD}@bucket/p", "AWS_ACCESS_KEY_ID"),
        ("DOCV_ARCHIVE_URL", "file:///", "cannot be the root of this machine"),
        ("DOCV_ARCHIVE_URL", "file:////", "cannot be the root of this machine"),
        ("DOCV_ARCHIVE_URL", "file:///a/%2E%2E/", "cannot be the root of this machine"),
        ("DOCV_ARCHIVE_URL", "file:///a?b", "write ? as %3F"),
        ("DOCV_ARCHIVE_URL", "file:///a%00b", "file:///path"),
        ("DOCV_S3_ENDPOINT", "nonsense", ""),
        ("DOCV_S3_ENDPOINT", f"https://user:{PASSWORD}@s3.example.com", "without user"),
        ("DOCV_S3_ENDPOINT", "https://s3.example.com/?x=y", "without user, query"),
        ("DOCV_REDIS_URL", "localhost:6379", "redis://host:6379/0"),
        ("DOCV_REDIS_URL", "http://localhost:6379", "redis://host:6379/0"),
        ("DOCV_REDIS_URL", "redis://host:port/0", ""),
        ("DOCV_REDIS_URL", "redis://host:99999/0", ""),
        ("DOCV_REDIS_URL", "redis+sentinel://one,two", "redis+sentinel://host:26379,host:26379/service/0"),
        ("DOCV_REDIS_REPLICAS", "-1", "greater than or equal to 0"),
        ("DOCV_BROKER_URL", "redis://host:6379/0", "amqp://user:password@host:5672/vhost"),
        ("DOCV_BROKER_URL", "sqs://", "amqps://"),
        ("DOCV_BROKER_URL", "amqps://one.example/docv;amqps://two.example/docv", "give one address"),
        ("DOCV_RATE", "0", "greater than 0"),
        ("DOCV_RATE", "-1", "greater than 0"),
        ("DOCV_RATE", "nan", ""),
        ("DOCV_RATE", "inf", ""),
        ("DOCV_RATE", "fast", "valid number"),
        ("DOCV_BURST", "0", "greater than or equal to 1"),
        ("DOCV_BURST", "1.5", "valid integer"),
        ("DOCV_DAILY_QUOTA", "0", "greater than or equal to 1"),
        ("DOCV_LEAVE_RATE", "-1", "greater than or equal to 0"),
        ("DOCV_LEAVE_DAILY", "-1", "greater than or equal to 0"),
        ("DOCV_BACKFILL_SHARE", "0", "greater than 0"),
        ("DOCV_BACKFILL_SHARE", "1.1", "less than or equal to 1"),
        ("DOCV_CONCURRENCY", "0", "greater than or equal to 1"),
        ("DOCV_ATTEMPTS", "0", "greater than or equal to 1"),
        ("DOCV_RETRY_SECONDS", "0", "greater than 0"),
        ("DOCV_SETTLE_SECONDS", "-1", "greater than or equal to 0"),
        ("DOCV_DRAIN_SECONDS", "nan", ""),
        ("DOCV_MAX_BUNDLE_BYTES", "1 MB", "valid integer"),
        ("DOCV_MAX_DOCUMENTS", "65536", "less than or equal to 65535"),
        ("DOCV_TAGS", "team", "'team' is not a valid tag; expected name=value"),
        ("DOCV_TAGS", "=kyc", "'=kyc' is not a valid tag"),
        ("DOCV_TAGS", "team=k&c", "'team=k&c' is not a valid tag"),
        ("DOCV_TAGS", "tëam=kyc", "is not a valid tag"),
        ("DOCV_TAGS", f"team={'x' * 257}", "is not a valid tag"),
        ("DOCV_TAGS", "a=1,b=2,c=3,d=4,e=5,f=6", "at most 5 tags"),
        ("DOCV_TAGS", "restricted=no", "restricted is a tag of docv-archive"),
        ("DOCV_WEBHOOK_SECRETS", "two words", "one word of visible ASCII"),
        ("DOCV_WEBHOOK_SECRETS", f"{TOKEN},name:", "one word of visible ASCII"),
        ("DOCV_INTAKE_TOKENS", "schlüssel", "one word of visible ASCII"),
        ("DOCV_INTAKE_TOKENS", f"user:{TOKEN}", "user:password is for webhooks and persons"),
        ("DOCV_RECORDS_TOKENS", f"user:{TOKEN}", "user:password is for webhooks and persons"),
        ("DOCV_ENCRYPTION_KEYS", SEALING, "expected id:key"),
        ("DOCV_ENCRYPTION_KEYS", f"a key:{SEALING}", "expected id:key"),
        ("DOCV_ENCRYPTION_KEYS", "2026:c2hvcnQ=", "32 bytes in base64"),
        ("DOCV_ENCRYPTION_KEYS", "2026:not base64", "32 bytes in base64"),
        ("DOCV_ENCRYPTION_KEYS", f"2026:{SEALING},2026:{SEALING}", "the same ID"),
        ("DOCV_LOCK_MODE", "SOMETIMES", "'GOVERNANCE' or 'COMPLIANCE'"),
        ("DOCV_LOCK_DAYS", "0", "greater than or equal to 1"),
        ("DOCV_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO'"),
        ("DOCV_KIND_PATTERNS", "front:*.jpg", "'front:*.jpg' does not begin with a kind and a colon"),
        ("DOCV_KIND_PATTERNS", "selfie:a*,*.pdf", "'*.pdf' does not begin with a kind and a colon"),
        ("DOCV_KIND_PATTERNS", "selfie:", "'selfie:' has no usable glob"),
        ("DOCV_KIND_PATTERNS", "selfie:*", "'selfie:*' has no usable glob"),
        ("DOCV_KIND_PATTERNS", "selfie:*/?*", "'selfie:*/?*' has no usable glob"),
        ("DOCV_KIND_PATTERNS", f"selfie:{'a' * 300}", "has no usable glob"),
        ("DOCV_KIND_PATTERNS", "selfie:[a-z", "'selfie:[a-z' has a [ without its ]"),
        ("DOCV_KIND_PATTERNS", "selfie:a\x07", "has no usable glob"),
        ("DOCV_KIND_PATTERNS", ",".join(["selfie:a*"] * 101), "at most 100 patterns"),
    ],
)
def test_an_invalid_value_is_reported_in_one_line_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    (line,) = problems_with(monkeypatch, **{name: value})
    assert line.startswith(name)
    assert words in line
    assert PASSWORD not in line
    assert "\n" not in line
    assert "Value error" not in line


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080", "https://riskos.example/base/"]
)
def test_plain_http_is_accepted_for_loopback_only(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with_environment(monkeypatch, DOCV_RISKOS_URL=url)
    assert load_settings().base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example/services",
        "ftp://hooks.example/",
        "https://",
        "https:///path",
        "http://hooks.example/",
        "https://user:password@hooks.example/",
        "https://hooks.example/#part",
        "https://hooks.example/a b",
        "https://hooks.example/" + "x" * 2_000,
    ],
)
def test_an_invalid_url_for_notifications_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    (line,) = problems_with(monkeypatch, DOCV_NOTIFY_URL=url)
    assert line.startswith("DOCV_NOTIFY_URL: ")


def test_notifications_may_go_to_loopback_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCV_NOTIFY_URL="http://127.0.0.1:9000/hook?x=1")
    assert "9000" not in repr(load_settings())


def test_all_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = problems_with(monkeypatch, DOCV_RATE="fast", DOCV_BURST="0", DOCV_ENVIRONMENT="prod")
    assert sorted(line.split(":")[0] for line in lines) == ["DOCV_BURST", "DOCV_ENVIRONMENT", "DOCV_RATE"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("DOCV_RIKSOS_URL", "; did you mean DOCV_RISKOS_URL?"),
        ("DOCV_APIKEY", "; did you mean DOCV_API_KEY?"),
        ("docv_apikey", "; did you mean DOCV_API_KEY?"),
        ("DOCV_QQQQ", ""),
    ],
)
def test_an_unknown_setting_is_reported_with_a_similar_name(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    assert problems_with(monkeypatch, **{name: KEY}) == (f"{name} is not a setting of this version{hint}",)


def test_an_unknown_setting_in_the_dotenv_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DOCV_RAET=4\n")
    with pytest.raises(SettingsError, match="DOCV_RAET is not a setting of this version; did you mean DOCV_RATE"):
        load_settings()


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCVIEWER="1", RATE="fast")
    assert load_settings().rate == 10.0


@pytest.mark.parametrize(
    ("need", "name"), [(Settings.need_api_key, "DOCV_API_KEY"), (Settings.need_redis_url, "DOCV_REDIS_URL")]
)
def test_a_missing_setting_is_reported_in_one_line_with_a_fix(need: object, name: str) -> None:
    assert callable(need)
    with pytest.raises(SettingsError, match=rf"^{name} is not set: .+$"):
        need(Settings())


def test_a_settings_error_survives_pickling() -> None:
    error = SettingsError(("one line", "another"))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # pickled just now
    assert (str(copy), copy.lines) == ("one line\nanother", error.lines)


# -- derived values


@pytest.mark.parametrize(
    ("environment", "own", "quota"),
    [("sandbox", None, 1000), ("sandbox", 50, 50), ("production", None, None), ("production", 50, 50)],
)
def test_the_sandbox_has_a_default_quota(environment: str, own: int | None, quota: int | None) -> None:
    assert Settings(environment=environment, daily_quota=own).quota == quota  # type: ignore[arg-type]


def test_each_environment_has_its_riskos_url() -> None:
    assert Settings(environment="production").base_url == "https://riskos.socure.com"
    assert Settings(environment="sandbox").base_url == "https://riskos.sandbox.socure.com"


def test_with_redis_changes_nothing_else() -> None:
    before = Settings(rate=5, api_key=SecretStr(KEY))
    after = before.with_redis("unix:///tmp/redis.sock")
    assert after.need_redis_url() == "unix:///tmp/redis.sock"
    assert before.redis_url is None
    assert after.model_dump(exclude={"redis_url"}) == before.model_dump(exclude={"redis_url"})


# -- child processes


def test_a_child_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, **ALL)
    settings = load_settings()
    written = settings.as_environment()
    assert written.keys() == ALL.keys()
    for name in ALL:
        monkeypatch.delenv(name)

    with_environment(monkeypatch, **written)

    assert load_settings() == settings


def test_a_child_process_gets_the_defaults_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings()
    (tmp_path / "elsewhere").mkdir()
    with_environment(monkeypatch, **settings.as_environment())
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_settings() == settings


def test_a_disabled_setting_is_disabled_in_a_child_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCV_NO_DOCUMENTS_TEXTS="|")
    settings = load_settings()
    assert settings.no_documents_texts == ()
    monkeypatch.delenv("DOCV_NO_DOCUMENTS_TEXTS")
    with_environment(monkeypatch, **settings.as_environment())
    assert load_settings() == settings


# -- secrets


def test_no_text_form_of_the_settings_has_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, **ALL)
    settings = load_settings()
    texts = [repr(settings), str(settings), f"{settings}", repr(settings.model_dump()), settings.model_dump_json()]
    for text in texts:
        for secret in (KEY, PASSWORD, TOKEN, PAIRED, PRODUCER, RECORDS):
            assert secret not in text
        assert "riskos.example" in text, "the other values are there"


@pytest.mark.parametrize(
    "variables",
    [
        {"DOCV_API_KEY": f"{KEY} {KEY}"},
        {"DOCV_API_KEY": KEY, "DOCV_RATE": "fast"},
        {"DOCV_REDIS_URL": f"http://user:{PASSWORD}@queue.example"},
        {"DOCV_REDIS_URL": f"redis://user:{PASSWORD}@queue.example:port"},
        {"DOCV_REDIS_URL": f"redis://user:{PASSWORD}@[queue.example"},
        {"DOCV_BROKER_URL": f"http://user:{PASSWORD}@rabbit.example"},
        {"DOCV_RISKOS_URL": f"https://user:{PASSWORD}@riskos.example"},
        {"DOCV_APIKEY": KEY},
        {"DOCV_WEBHOOK_SECRETS": f"{KEY},{PASSWORD} {PASSWORD}"},
        {"DOCV_INTAKE_TOKENS": f"user:{PASSWORD}"},
        {"DOCV_NOTIFY_URL": f"http://hooks.example/{KEY}"},
        {"DOCV_NOTIFY_URL": f"https://hooks.example/{KEY} {PASSWORD}"},
        {"DOCV_NOTIFY_SECRET": f"{KEY} {PASSWORD}"},
    ],
)
def test_a_secret_is_not_repeated_in_an_error(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    with_environment(monkeypatch, **variables)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    error: BaseException | None = caught.value
    while error:
        assert KEY not in repr(error) + str(error)
        assert PASSWORD not in repr(error) + str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_secrets_returns_every_secret_and_its_form_in_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, **ALL)
    pairs = (f"riskos:{PAIRED}", f"operator:{OPERATOR}", f"viewer:{VIEWER}")
    as_headers = {base64.b64encode(pair.encode()).decode() for pair in pairs}
    secrets = {
        HOOK,
        "/services/s3cr3t-h00k",
        SIGNING,
        SEALING,
        KEY,
        TOKEN,
        PAIRED,
        PRODUCER,
        f"another-{PRODUCER}",
        RECORDS,
        OPERATOR,
        VIEWER,
        MONITORING,
    }
    assert secrets | as_headers <= set(load_settings().secrets())


@pytest.mark.parametrize("name", ["WEBHOOK_SECRETS", "INTAKE_TOKENS", "RECORDS_TOKENS", "OPERATORS", "VIEWERS"])
@pytest.mark.parametrize("value", ["a", f"{TOKEN},short", "fifteen-letters", "a-very-long-name:fifteen-letters"])
def test_a_short_secret_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    if name in {"INTAKE_TOKENS", "RECORDS_TOKENS"}:
        value = value.rpartition(":")[2]
    (line,) = problems_with(monkeypatch, **{f"DOCV_{name}": value})
    assert line.startswith(f"DOCV_{name}: each token or password must have at least 16 characters")


def test_a_secret_of_sixteen_characters_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCV_OPERATORS="sixteen-letters-,o:sixteen:letters-")
    assert len(load_settings().operators) == 2


@pytest.mark.parametrize("name", ["DOCV_OPERATORS", "DOCV_VIEWERS"])
def test_operators_and_viewers_have_a_token_or_a_user_and_a_password(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with_environment(monkeypatch, **{name: f"operator:{PAIRED}, {TOKEN}"})
    settings = load_settings()
    secrets = settings.operators or settings.viewers
    assert [secret.get_secret_value() for secret in secrets] == [f"operator:{PAIRED}", TOKEN]
    assert problems_with(monkeypatch, **{name: "operator:"})[0].startswith(f"{name}: each must be one word")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DOCV_LOCK_MODE": "COMPLIANCE"}, "belong together"),
        ({"DOCV_SSE": "AES256", "DOCV_KMS_KEY_ID": "alias/docv"}, "set only one of them"),
        ({"DOCV_LOCK_DAYS": "7"}, "belong together"),
        ({"DOCV_LOCK_MODE": "COMPLIANCE", "DOCV_LOCK_DAYS": "7"}, "Object Lock needs an s3:// archive"),
    ],
)
def test_settings_that_do_not_fit_together_are_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    (line,) = problems_with(monkeypatch, **variables)
    assert message in line


def test_secret_settings_without_values_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    with_environment(monkeypatch, DOCV_WEBHOOK_SECRETS=" , ", DOCV_INTAKE_TOKENS="")
    assert (load_settings().webhook_secrets, load_settings().intake_tokens) == ((), ())


@pytest.mark.parametrize(
    "values", [{"api_key": f"{KEY} {KEY}"}, {"redis_url": f"http://user:{PASSWORD}@queue.example"}]
)
def test_a_secret_is_not_repeated_in_an_error_of_pydantic(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**values)  # type: ignore[arg-type]  # pydantic wraps them in SecretStr
    assert KEY not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_loading_settings_does_not_change_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DOCV_RATE=4\n")
    with_environment(monkeypatch, DOCV_BURST="2")
    before = dict(os.environ)
    load_settings()
    assert dict(os.environ) == before
