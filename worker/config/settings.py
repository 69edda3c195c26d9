"""What the process needs to know, read once at start, secrets sealed."""

import base64
import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.config import riskos_texts, validators

_PREFIX = "DOCV_"
_DOTENV = ".env"
_SECRETS = Path("/run/secrets")
_RISKOS = {"production": "https://riskos.socure.com", "sandbox": "https://riskos.sandbox.socure.com"}
_SANDBOX_QUOTA = 1_000
_MAX_TAGS = 5

_CREDENTIALS = ("webhook_secrets", "intake_tokens", "operators", "viewers")
# What stands between the values of a setting that has several.
_SEPARATORS = {
    "no_documents_texts": "|",
    "gateway_texts": "|",
    **dict.fromkeys((*_CREDENTIALS, "encryption_keys", "kind_patterns"), ","),
}
_STRONG = 16

MiB = 1 << 20
MAX_SETTLE_SECONDS = 86_400
"""Longest time that an evaluation may settle before its first request."""


class SettingsError(Exception):
    """A setting is missing, unknown or impossible; one line for each, made for a person."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__(lines)
        self.lines = lines

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Settings(BaseSettings):
    """Every setting of the contract that this version knows; each is an environment variable ``DOCV_…``.

    They may also stand in ``.env`` or, one file each, under ``/run/secrets``.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    environment: Literal["production", "sandbox"] = "sandbox"
    """Which RiskOS the key belongs to; the first part of every key in the archive."""
    api_key: SecretStr | None = None
    """The key of the RiskOS account."""
    riskos_url: Annotated[str | None, AfterValidator(validators.riskos_url)] = None
    """Base URL; by default the one of the environment. ``/api/evaluation/{eval_id}/documents`` is appended."""
    api_version: str | None = None
    """Value of ``X-API-Version``, such as ``2025-01-01.orion``."""
    client_cert: Path | None = None
    """PEM file with the client certificate for ``https://mtls.riskos.socure.com``."""
    client_key: Path | None = None
    """PEM file with its key, where it is not in the same file."""
    accounts: Path | None = None
    """TOML file with further accounts, see ``worker.config.accounts``."""
    archive_url: Annotated[str, AfterValidator(validators.archive_url)] = Field(
        default_factory=lambda: Path("archive").absolute().as_uri()
    )
    """Where the archive is: ``s3://bucket/prefix`` or ``file:///path``."""
    s3_endpoint: Annotated[str | None, AfterValidator(validators.s3_endpoint)] = None
    """URL of an S3 other than Amazon's."""
    redis_url: Annotated[SecretStr | None, AfterValidator(validators.redis_url)] = None
    """Redis of queue and ledger; ``run`` and ``demo`` start an embedded one where it is missing."""
    redis_replicas: int = Field(default=0, ge=0, le=10)
    """Replicas of Redis that must have what is accepted before that is answered; else a failover may forget it."""
    broker_url: Annotated[SecretStr | None, AfterValidator(validators.broker_url)] = None
    """RabbitMQ, where that is to carry the messages instead of Redis; ledger, holds and rate stay in Redis."""
    state_dir: Path = Path(".docv-archive")
    """Folder of the embedded Redis, and of bundles and documents that are too large for memory."""
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.credentials)] = ()
    """What RiskOS may show to deliver an event, separated by commas: Bearer tokens, or ``user:password`` for Basic."""
    intake_tokens: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.intake_tokens)] = ()
    """Bearer tokens of those who may hand in IDs over HTTP, separated by commas."""
    operators: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.credentials)] = ()
    """Who may look at the operations page, see pictures and act, by commas: Bearer tokens, or ``user:password``."""
    viewers: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.credentials)] = ()
    """Who may look at the operations page and the figures and no more, in the same form."""

    rate: float = Field(default=10.0, gt=0, le=10_000)
    """Requests per second the account may send, over all processes."""
    burst: int = Field(default=1, ge=1, le=1_000)
    """Requests that may follow each other without a pause after a quiet time."""
    daily_quota: Annotated[int | None, Field(ge=1)] = None
    """Requests in 24 hours; 1000 in the sandbox where it is not set."""
    backfill_share: float = Field(default=0.9, gt=0, le=1)
    """Part of the rate that the backfill queue may use."""
    live_reserve: float = Field(default=0.05, ge=0, lt=1)
    """Part of the daily quota that the backfill queue leaves to what is live."""
    leave_rate: float = Field(default=1.0, ge=0, le=10_000)
    """Requests per window of RiskOS's rate that are left to others who use the key, such as your own onboarding."""
    leave_daily: int = Field(default=0, ge=0, le=1_000_000_000)
    """Requests per day of RiskOS's quota that are left to them."""
    concurrency: int = Field(default=64, ge=1, le=1_024)
    """Evaluations in flight in one process."""
    attempts: int = Field(default=6, ge=1, le=100)
    """Attempts of an evaluation before it becomes a dead letter."""
    retry_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds an evaluation is parked after its first failed attempt; doubles with each further one, to 6 h."""
    backlog: int = Field(default=20_000, ge=1_000, le=10_000_000)
    """Evaluations that Redis holds before a backfill waits with its next ones."""
    lease_seconds: float = Field(default=120.0, ge=2, le=3_600)
    """Seconds after which a dead worker's evaluations are taken up by another; living workers renew their leases."""
    settle_seconds: float = Field(default=15.0, ge=0, le=MAX_SETTLE_SECONDS)
    """Seconds between an event and its first request: images may need some time after completion."""
    ask_without_docv: bool = False
    """Whether RiskOS is asked even if an event shows that the evaluation was completed without a DocV step."""
    drain_seconds: float = Field(default=25.0, ge=0, le=3_600)
    """Seconds that transfers under way may take to finish when the worker is told to stop."""

    max_bundle_bytes: int = Field(default=256 * MiB, ge=1_024)
    """Largest bundle that is downloaded."""
    max_unpacked_bytes: int = Field(default=1_024 * MiB, ge=1_024)
    """Largest sum of the documents of one bundle."""
    max_document_bytes: int = Field(default=1_024 * MiB, ge=1_024)
    """Largest document; a larger one is unreadable, the others of its bundle are archived."""
    max_ratio: int = Field(default=200, ge=1)
    """Most bytes that each byte of a bundle may unpack to; looked at beyond 1 MiB."""
    max_documents: int = Field(default=1_000, ge=1, le=65_535)
    """Most documents in one bundle."""
    memory_bytes: int = Field(default=256 * MiB, ge=MiB)
    """Bytes of bundles and documents that one process holds in memory; what is more goes to disk, or waits."""
    kind_patterns: Annotated[tuple[str, ...], NoDecode, AfterValidator(validators.kind_patterns)] = ()
    """Kinds of documents by their names in the bundle, ``kind:glob`` by commas; tried after the built-in patterns."""
    no_documents_texts: Annotated[tuple[str, ...], NoDecode] = riskos_texts.NO_DOCUMENTS_TEXTS
    """Error texts, separated by ``|``, that mean "there are no documents"; compared without case and blanks."""
    gateway_texts: Annotated[tuple[str, ...], NoDecode] = riskos_texts.GATEWAY_TEXTS
    """Error texts of gateways in front of RiskOS, separated by ``|``: a 400 or 404 with one is tried again."""

    kms_key_id: str | None = None
    """Key for SSE-KMS; S3's own default encryption where it is missing."""
    storage_class: str | None = None
    """S3 storage class of the documents, such as ``STANDARD_IA``."""
    lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] | None = None
    """Object Lock mode of documents, manifests and quarantine; the bucket must have been made with Object Lock."""
    lock_days: int | None = Field(default=None, ge=1, le=36_500)
    """Days for which Object Lock keeps it."""
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(validators.encryption_keys)] = ()
    """Keys to seal documents with before they leave: ``id:base64`` of 32 bytes, by commas; one seals, all open."""
    tags: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """Up to five tags of your own on every document and manifest: ``team=kyc,retention=7y``."""

    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    """Address that a worker shows its figures on."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for them (``/metrics``, ``/livez``); none is opened where it is not set, 0 takes a free one and logs it."""
    celery_events: bool = False
    """Whether workers send Celery's events and take its remote control: Flower and celery-exporter need both."""
    strict: bool = False
    """Whether a Redis that may lose what it was told keeps a worker from starting; else it is a warning."""
    tracing: bool = False
    """Whether spans go to a collector, as OpenTelemetry's own variables say; needs the extra ``tracing``."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log line that is written."""

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
    def _few_tags(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > _MAX_TAGS:
            raise ValueError(f"at most {_MAX_TAGS} tags of your own fit beside ours")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        if self.api_key is not None and not validators.is_token(self.api_key.get_secret_value()):
            raise ValueError("DOCV_API_KEY must be one word of visible ASCII characters")
        if (self.lock_mode is None) != (self.lock_days is None):
            raise ValueError("DOCV_LOCK_MODE and DOCV_LOCK_DAYS belong together: set both, or none")
        if self.lock_mode and self.archive_url.startswith("file:"):
            raise ValueError("DOCV_LOCK_MODE: a folder knows no Object Lock; it needs an s3:// archive")
        return self

    @property
    def quota(self) -> int | None:
        """Requests in 24 hours, None for no quota. The sandbox has one (RiskOS documentation, "Rate Limits")."""
        return self.daily_quota or (_SANDBOX_QUOTA if self.environment == "sandbox" else None)

    @property
    def base_url(self) -> str:
        """Base URL of RiskOS, the one that is set or the one of the environment."""
        return self.riskos_url or _RISKOS[self.environment]

    def as_environment(self) -> dict[str, str]:
        """Return the settings as environment variables, secrets revealed: for a child process, never to be shown."""
        return {_PREFIX + name.upper(): _as_text(name, value) for name, value in self if value not in (None, {})}

    def secrets(self) -> list[str]:
        """Return every text that must not appear in a log line, also as a header would carry it."""
        credentials = [each.get_secret_value() for name in _CREDENTIALS for each in getattr(self, name)]
        pairs = [text for text in credentials if ":" in text]
        return [
            *([self.api_key.get_secret_value()] if self.api_key else []),
            *credentials,
            *(key.partition(":")[2] for key in self.keyring_texts()),
            *(pair.partition(":")[2] for pair in pairs),
            *(base64.b64encode(pair.encode()).decode() for pair in pairs),
        ]

    def keyring_texts(self) -> list[str]:
        """Return the encryption keys as they are written, ``id:base64``; the first is the one to seal with."""
        return [key.get_secret_value() for key in self.encryption_keys]

    def weak_secrets(self) -> list[str]:
        """Return the settings that hold a secret so short that it could be guessed."""
        return [
            _PREFIX + name.upper()
            for name in _CREDENTIALS
            # The name of a pair is no secret.
            if any(len(secret.get_secret_value().rpartition(":")[2]) < _STRONG for secret in getattr(self, name))
        ]

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
    """Read the settings from the environment, ``.env`` and ``/run/secrets``, once, at the start of a process.

    Args:
        overrides: settings that a command gives itself, such as the URL of the embedded Redis.

    Raises:
        SettingsError: something is unknown or impossible; one line for each.
    """
    unknown = tuple(_unknown(os.environ | dotenv_values(_DOTENV)))
    if unknown:
        raise SettingsError(unknown)
    try:
        return Settings(
            _env_file=_DOTENV,  # type: ignore[call-arg]  # pydantic-settings takes it aside
            _secrets_dir=_SECRETS if _SECRETS.is_dir() else None,
            **overrides,
        )
    except ValidationError as error:
        raise SettingsError(tuple(_lines(error))) from None


def _unknown(environment: Mapping[str, object]) -> Iterator[str]:
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            yield f"{name} is no setting of this version" + (f"; did you mean {near[0]}?" if near else "")


def _lines(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        what = problem["msg"].removeprefix("Value error, ")
        where = _PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else ""
        yield f"{where}: {what}" if where else what


def _as_text(name: str, value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return ",".join(f"{name}={text}" for name, text in value.items())
        case tuple():
            # A separator alone is no value at all; an empty variable would count as not set.
            return _SEPARATORS[name].join(_as_text(name, each) for each in value) or _SEPARATORS[name]
    return str(value)
