"""The settings of the process, read once when it starts."""

import base64
import os
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.config import riskos_texts, validators
from worker.config.plain_connections import find_plain_connections
from worker.config.proxy import find_proxy
from worker.config.setting_files import find_file_problems, secret_folders, suggest_name

_PREFIX = "DOCV_"
DOTENV = ".env"
_RISKOS = {"production": "https://riskos.socure.com", "sandbox": "https://riskos.sandbox.socure.com"}
_SANDBOX_QUOTA = 1_000
_MAX_TAGS = 5

_CREDENTIALS = ("webhook_secrets", "intake_tokens", "records_tokens", "operators", "viewers")
# The separators of settings with several values.
_SEPARATORS = {
    "no_documents_texts": "|",
    "gateway_texts": "|",
    **dict.fromkeys((*_CREDENTIALS, "encryption_keys", "kind_patterns"), ","),
}

MiB = 1 << 20
MAX_SETTLE_SECONDS = 86_400
"""Longest time that an evaluation may settle before its first request."""


class SettingsError(Exception):
    """A setting is missing, unknown or not valid. Each line is a sentence for the operator."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__(lines)
        self.lines = lines

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Settings(BaseSettings):
    """All settings of this version. Each is an environment variable ``DOCV_…``.

    They may also be in ``.env``, or each in its own file in ``/run/secrets`` or in the folder of systemd's credentials.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    # -- RiskOS
    environment: Literal["production", "sandbox"] = "sandbox"
    """The RiskOS environment of the API key; the first part of every key in the archive."""
    api_key: SecretStr | None = None
    """The key of the RiskOS account."""
    riskos_url: Annotated[str | None, AfterValidator(validators.riskos_url)] = None
    """Base URL of RiskOS, by default that of the environment; plain ``http`` only to loopback."""
    api_version: str | None = None
    """Value of ``X-API-Version``, such as ``2025-01-01.orion``: see docs/riskos.md#the-api-version."""
    proxy: Annotated[SecretStr | None, AfterValidator(validators.proxy)] = None
    """Proxy for requests to RiskOS: ``http://user:password@host:port``; by default that of ``HTTPS_PROXY``."""
    client_cert: Path | None = None
    """PEM file with the client certificate for ``https://mtls.riskos.socure.com``."""
    client_key: Path | None = None
    """PEM file with its key, if that is not in the same file."""
    accounts: Path | None = None
    """TOML file with further accounts: see docs/accounts.md."""

    # -- Archive
    archive_url: Annotated[str, AfterValidator(validators.archive_url)] = Field(
        default_factory=lambda: Path("archive").absolute().as_uri()
    )
    """Where the archive is: ``s3://bucket/prefix`` or ``file:///path``; by default the folder ``archive`` here."""
    s3_endpoint: Annotated[str | None, AfterValidator(validators.s3_endpoint)] = None
    """URL of an S3 other than Amazon's: see docs/network.md."""
    s3_tags: Literal["with_put", "after_put"] = "with_put"
    """How tags reach S3: with the request that writes an object, or in a separate request before the manifest.
    ``doctor`` says if a store needs ``after_put``."""
    s3_checksum: Literal["header", "off"] = "header"
    """Whether each object is sent with its SHA-256 in a header, which S3 checks and stores.
    ``doctor`` says if a store needs ``off``."""

    # -- Redis, broker and this process
    redis_url: Annotated[SecretStr | None, AfterValidator(validators.redis_url)] = None
    """Redis (6.2 or newer) or Valkey of queues and ledger; without it, ``run`` and ``demo`` start an embedded one.
    Behind Sentinel: ``redis+sentinel://host:26379,host:26379/service/0``, see docs/planning.md#very-large-archives."""
    redis_replicas: int = Field(default=0, ge=0, le=10)
    """Replicas of Redis that must have an accepted evaluation before it is confirmed, so that a failover keeps it."""
    broker_url: Annotated[SecretStr | None, AfterValidator(validators.broker_url)] = None
    """RabbitMQ as the broker instead of Redis, ``amqp(s)://…``; ledger, holds and rate stay in Redis."""
    actor: str | None = Field(default=None, max_length=500)
    """The person that runs a command, for the access log, receipts and holds; by default the login name.
    It is read from the environment only."""
    state_dir: Path = Path(".docv-archive")
    """Folder for the embedded Redis and its log, and for bundles and documents that are too large for memory."""

    # -- HTTP API and operations page
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.credentials)] = ()
    """Credentials for delivering events, comma-separated: Bearer tokens, or ``user:password`` for Basic."""
    intake_tokens: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.bearer_tokens)] = ()
    """Bearer tokens of producers that submit IDs over HTTP, comma-separated."""
    records_tokens: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.bearer_tokens)] = ()
    """Bearer tokens of systems that report events of the retention schedule over HTTP, comma-separated."""
    operators: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.credentials)] = ()
    """Credentials for all rights on the operations page, comma-separated: Bearer tokens, or ``user:password``."""
    viewers: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.credentials)] = ()
    """Credentials for reading the operations page and the metrics, without images and actions, in the same form."""
    path_prefix: Annotated[str | None, AfterValidator(validators.path_prefix)] = None
    """Path below which a proxy serves the operations page, such as ``/docv``:
    see docs/operations-page.md#behind-a-proxy."""

    # -- Notifications
    notify_url: Annotated[SecretStr | None, AfterValidator(validators.notify_url)] = None
    """URL that gets a POST when a run finished, dead letters appeared or ``verify`` found a difference:
    see docs/notifications.md."""
    notify_secret: Annotated[SecretStr | None, AfterValidator(validators.notify_secret)] = None
    """Key of at least 16 characters that signs these requests: HMAC-SHA256 of the body, in ``Docv-Signature``."""

    # -- Rate, quota and retries
    rate: float = Field(default=10.0, gt=0, le=10_000)
    """Requests per second of the account, over all processes."""
    burst: int = Field(default=1, ge=1, le=1_000)
    """Requests that may follow each other without a pause after a quiet time."""
    daily_quota: Annotated[int | None, Field(ge=1)] = None
    """Requests in 24 hours, at most what RiskOS's headers allow; by default 1000 in the sandbox."""
    backfill_share: float = Field(default=0.9, gt=0, le=1)
    """Part of the rate that the backfill queue may use."""
    live_reserve: float = Field(default=0.05, ge=0, lt=1)
    """Part of the daily quota that the backfill queue leaves to the live queue."""
    leave_rate: float = Field(default=1.0, ge=0, le=10_000)
    """Requests in each window of RiskOS's limit that are left to other users of the key, such as your onboarding."""
    leave_daily: int = Field(default=0, ge=0, le=1_000_000_000)
    """Requests in each day of RiskOS's limit that are left to them."""
    concurrency: int = Field(default=64, ge=1, le=1_024)
    """Evaluations in flight in one process."""
    attempts: int = Field(default=6, ge=1, le=100)
    """Attempts of an evaluation before it becomes a dead letter."""
    retry_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds that an evaluation is parked after its first failed attempt; doubles with each attempt, up to 6 h."""
    backlog: int = Field(default=20_000, ge=1_000, le=10_000_000)
    """Number of evaluations in Redis above which a backfill feeds no more."""
    lease_seconds: float = Field(default=120.0, ge=2, le=3_600)
    """Seconds after which another worker gets the evaluations of a dead one; live workers extend their leases."""
    put_seconds: float = Field(default=60.0, ge=1, le=3_600)
    """Longest time of one upload to the archive; ``erase`` waits for it, and for a lease, before it sweeps again."""

    # -- Handling of evaluations
    settle_seconds: float = Field(default=15.0, ge=0, le=MAX_SETTLE_SECONDS)
    """Seconds between an event and the first request, because images may need some time after completion."""
    ask_without_docv: bool = False
    """Whether RiskOS is asked even if an event says that the evaluation was completed without a DocV step."""
    explain: Literal["live", "all", "off"] = "live"
    """For which evaluations one more request asks RiskOS why it has no documents."""
    restricted: Literal["withhold", "archive"] = "withhold"
    """How images of military IDs and minors are handled: not stored, or archived with a tag and without a lock.
    See docs/operations.md#restricted-images."""
    drain_seconds: float = Field(default=25.0, ge=0, le=3_600)
    """Seconds that transfers in progress may take after the worker was told to stop."""

    # -- Limits and contents of a bundle
    max_bundle_bytes: int = Field(default=256 * MiB, ge=1_024)
    """Maximum size of a bundle."""
    max_unpacked_bytes: int = Field(default=1_024 * MiB, ge=1_024)
    """Maximum size of all documents of a bundle."""
    max_document_bytes: int = Field(default=1_024 * MiB, ge=1_024)
    """Maximum size of a document; a larger one is unreadable, and the others of its bundle are archived."""
    max_ratio: int = Field(default=200, ge=1)
    """Maximum compression ratio of a bundle; checked above 256 MiB."""
    max_documents: int = Field(default=1_000, ge=1, le=65_535)
    """Maximum number of documents in a bundle."""
    memory_bytes: int = Field(default=256 * MiB, ge=MiB)
    """Bytes of bundles and documents that a process holds in memory, in addition to about 100 MB of its own.
    Bundles wait for memory; those above a sixteenth of it go to disk."""
    kind_patterns: Annotated[tuple[str, ...], NoDecode, AfterValidator(validators.kind_patterns)] = ()
    """Kinds of documents by file name, ``kind:glob``, comma-separated; tried after the built-in patterns.
    See docs/archive-format.md#kinds."""
    no_documents_texts: Annotated[tuple[str, ...], NoDecode] = riskos_texts.NO_DOCUMENTS_TEXTS
    """Error texts, separated by ``|``, that mean "there are no documents"; compared without case and white space."""
    gateway_texts: Annotated[tuple[str, ...], NoDecode] = riskos_texts.GATEWAY_TEXTS
    """Error texts of gateways in front of RiskOS, separated by ``|``; a 400 or 404 with one is tried again."""

    # -- Encryption, retention and tags
    kms_key_id: str | None = None
    """Key for SSE-KMS; by default the bucket's encryption."""
    sse: Literal["AES256", "aws:kms"] | None = None
    """Encryption header for S3 if the bucket's policy demands one; ``DOCV_KMS_KEY_ID`` implies ``aws:kms``."""
    storage_class: str | None = None
    """S3 storage class of the documents, such as ``STANDARD_IA``."""
    lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] | None = None
    """Object Lock mode of documents, manifests and quarantine; the bucket must have Object Lock."""
    lock_days: int | None = Field(default=None, ge=1, le=36_500)
    """Days for which Object Lock keeps an object, unless the retention schedule says until when."""
    retention: Path | None = None
    """File with the retention schedule: see docs/retention.md. Without it, everything is kept."""
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.encryption_keys)] = ()
    """Keys to seal documents with, ``id:base64`` of 32 bytes, comma-separated: the first one seals, all open.

    If a key is lost, so are its documents.
    """
    tags: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """Up to five tags of your own on every document and manifest: ``team=kyc,retention=7y``."""

    # -- Monitoring and logs
    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which a worker serves its metrics."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for ``/metrics`` and ``/livez``; 0 takes a free one and logs it. Without it, nothing is served."""
    celery_events: bool = False
    """Whether workers send Celery's events and accept its remote control; Flower and celery-exporter need both."""
    strict: bool = False
    """Whether a Redis that may lose evaluations, or a connection without TLS to another machine, is an error at the
    start; if not, it is a warning."""
    tracing: bool = False
    """Whether spans are sent to the collector that OpenTelemetry's variables name: see docs/metrics.md#tracing.
    It needs the extra ``tracing``."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""

    @field_validator(*_SEPARATORS, mode="before")
    @classmethod
    def _split_texts(cls, value: object, field: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        return tuple(text.strip() for text in value.split(_SEPARATORS[field.field_name or ""]) if text.strip())

    @field_validator("tags", mode="before")
    @classmethod
    def _split_tags(cls, value: object) -> object:
        return dict(validators.tags(value)) if isinstance(value, str) else value

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > _MAX_TAGS:
            raise ValueError(f"at most {_MAX_TAGS} tags of your own are allowed")
        if "restricted" in value:
            raise ValueError("restricted is a tag of docv-archive, for images that must not be kept")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        if self.api_key is not None and not validators.is_token(self.api_key.get_secret_value()):
            raise ValueError("DOCV_API_KEY must be one word of visible ASCII characters")
        if (self.lock_mode is None) != (self.lock_days is None):
            raise ValueError("DOCV_LOCK_MODE and DOCV_LOCK_DAYS belong together: set both, or none")
        if self.kms_key_id and self.sse == "AES256":
            raise ValueError("DOCV_SSE=AES256 is encryption without DOCV_KMS_KEY_ID: set only one of them")
        if self.lock_mode and self.archive_url.startswith("file:"):
            raise ValueError("DOCV_LOCK_MODE: Object Lock needs an s3:// archive, not a folder")
        if self.strict and (plain := self.plain_connections()):
            raise ValueError("\n".join(f"{each}, or remove DOCV_STRICT" for each in plain))
        return self

    def plain_connections(self) -> tuple[str, ...]:
        """Return a sentence for each connection that is not encrypted, or that trusts any server."""
        redis, broker = (url.get_secret_value() if url else None for url in (self.redis_url, self.broker_url))
        return tuple(find_plain_connections(self.s3_endpoint, redis, broker))

    @property
    def private_dir(self) -> Path:
        """Folder in the state directory that only the user of this process may enter."""
        return self.state_dir / "private"

    @property
    def quota(self) -> int | None:
        """Requests in 24 hours, None for no quota. The sandbox has one (RiskOS documentation, "Rate Limits")."""
        return self.daily_quota or (_SANDBOX_QUOTA if self.environment == "sandbox" else None)

    @property
    def base_url(self) -> str:
        """Base URL of RiskOS: the one in the settings, or that of the environment."""
        return self.riskos_url or _RISKOS[self.environment]

    def find_proxy(self) -> SecretStr | None:
        """Return the proxy for requests to RiskOS: the one in the settings, or that of the environment.

        Raises:
            SettingsError: the environment names something other than an HTTP proxy.
        """
        try:
            return find_proxy(self.base_url, self.proxy)
        except ValueError as error:
            raise SettingsError((f"HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: {error}; or set DOCV_PROXY",)) from None

    def as_environment(self) -> dict[str, str]:
        """Return the settings as environment variables for a child process. They contain the secrets in plain text."""
        return {_PREFIX + name.upper(): _format_value(name, value) for name, value in self if value not in (None, {})}

    def secrets(self) -> list[str]:
        """Return every text that must not appear in a log line, including the form that a header has."""
        credentials = [each.get_secret_value() for name in _CREDENTIALS for each in getattr(self, name)]
        pairs = [text for text in credentials if ":" in text]
        return [
            *([self.api_key.get_secret_value()] if self.api_key else []),
            *([password] if self.proxy and (password := urlsplit(self.proxy.get_secret_value()).password) else []),
            *credentials,
            *_notify_secrets(self.notify_url, self.notify_secret),
            *(key.partition(":")[2] for key in self.keyring_texts()),
            *(pair.partition(":")[2] for pair in pairs),
            *(base64.b64encode(pair.encode()).decode() for pair in pairs),
        ]

    def keyring_texts(self) -> list[str]:
        """Return the encryption keys as ``id:base64``; the first one seals."""
        return [key.get_secret_value() for key in self.encryption_keys]

    def with_redis(self, url: str) -> "Settings":
        """Return the same settings with this Redis."""
        return self.model_copy(update={"redis_url": SecretStr(url)})

    def need_api_key(self) -> SecretStr:
        """Return the API key.

        Raises:
            SettingsError: there is none.
        """
        if self.api_key is None:
            raise SettingsError(("DOCV_API_KEY is not set: put the key of your RiskOS account there, or into .env",))
        return self.api_key

    def need_redis_url(self) -> str:
        """Return the URL of Redis.

        Raises:
            SettingsError: there is none.
        """
        if self.redis_url is None:
            raise SettingsError(
                ("DOCV_REDIS_URL is not set: name the Redis that workers and producers share, redis://host:6379/0",)
            )
        return self.redis_url.get_secret_value()


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment, ``.env`` and secret files, once, at the start of a process.

    Args:
        overrides: settings that a command overrides, such as the URL of the embedded Redis.

    Raises:
        SettingsError: a setting is unknown, not valid or unreadable; one line for each problem.
    """
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    if problems := tuple(find_file_problems(Path(DOTENV), known)):
        raise SettingsError(problems)
    unknown = tuple(_find_unknown(os.environ | dotenv_values(DOTENV), known))
    if unknown:
        raise SettingsError(unknown)
    try:
        return Settings(
            _env_file=DOTENV,  # type: ignore[call-arg]  # accepted in addition to the fields
            _secrets_dir=secret_folders(),
            **overrides,
        )
    except ValidationError as error:
        raise SettingsError(tuple(_describe_problems(error))) from None


def _notify_secrets(url: SecretStr | None, secret: SecretStr | None) -> Iterator[str]:
    """Yield the signing key, and the parts of the URL that may be a secret: a short path such as /hook is not."""
    if secret:
        yield secret.get_secret_value()
    if url:
        parts = urlsplit(url.get_secret_value())
        texts = (url.get_secret_value(), parts.path, parts.query)
        yield from (text for text in texts if len(text) >= validators.SHORTEST_SECRET)


def _find_unknown(environment: Mapping[str, object], known: AbstractSet[str]) -> Iterator[str]:
    for name in environment:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            yield f"{name} is not a setting of this version{suggest_name(name.upper(), known)}"


def _describe_problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        what = problem["msg"].removeprefix("Value error, ")
        where = _PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else ""
        yield f"{where}: {what}" if where else what


def _format_value(name: str, value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return ",".join(f"{name}={text}" for name, text in value.items())
        case tuple():
            # A separator alone means "no values"; an empty variable would count as not set.
            return _SEPARATORS[name].join(_format_value(name, each) for each in value) or _SEPARATORS[name]
    return str(value)
