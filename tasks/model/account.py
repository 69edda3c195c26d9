"""An account at RiskOS, which has its own rate limit and its own holds."""

from dataclasses import dataclass

from pydantic import SecretStr

from worker.config.accounts_file import AccountSettings

DEFAULT_ACCOUNT = "default"
"""Name of the account that the settings describe, and that is used if no account is named."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The rate and the quota of an account.

    Attributes:
        rate: requests per second.
        burst: requests that may follow each other without a pause after a quiet time.
        backfill_share: part of the rate that the backfill queue may use.
        daily_quota: requests in 24 hours, or None.
        live_reserve: part of the quota that the backfill queue leaves to the live queue.
        leave_rate: requests in each window of RiskOS's limit that are left to other users of the key.
        leave_daily: requests in each day of RiskOS's limit that are left to them.
        shared_with: name of the account whose rate and quota these are; None if they are its own.
    """

    rate: float = 10.0
    burst: int = 1
    backfill_share: float = 0.9
    daily_quota: int | None = None
    live_reserve: float = 0.05
    leave_rate: float = 1.0
    leave_daily: int = 0
    shared_with: str | None = None

    @classmethod
    def from_settings(cls, known: AccountSettings) -> "Allowance":
        """Return the rate and the quota of an account; this needs no API key."""
        settings = known.settings
        return cls(
            rate=settings.rate,
            burst=settings.burst,
            backfill_share=settings.backfill_share,
            daily_quota=settings.quota,
            live_reserve=settings.live_reserve,
            leave_rate=settings.leave_rate,
            leave_daily=settings.leave_daily,
            shared_with=known.shares_rate_with,
        )


@dataclass(frozen=True, slots=True)
class Account:
    """A RiskOS API key with its environment and limits.

    Attributes:
        name: its name in the ledger, the rate limiter and manifests.
        environment: ``production`` or ``sandbox``.
        url: base URL of RiskOS.
        key: the API key.
        api_version: value of ``X-API-Version``, or None.
        allowance: its rate and quota.
        proxy: URL of the proxy for its requests, or None.
    """

    name: str
    environment: str
    url: str
    key: SecretStr
    api_version: str | None
    allowance: Allowance
    proxy: SecretStr | None = None

    @property
    def proxy_url(self) -> str | None:
        """The URL of the proxy for aiohttp."""
        return self.proxy.get_secret_value() if self.proxy else None

    @classmethod
    def from_settings(cls, known: AccountSettings) -> "Account":
        """Return an account from its settings.

        Raises:
            SettingsError: its key is missing, or the environment names a proxy that cannot be used.
        """
        settings = known.settings
        return cls(
            name=known.name,
            environment=settings.environment,
            url=settings.base_url,
            key=settings.need_api_key(),
            api_version=settings.api_version,
            allowance=Allowance.from_settings(known),
            proxy=settings.find_proxy(),
        )
