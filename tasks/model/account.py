"""An account at RiskOS: the unit of rate limiting and of holds."""

from dataclasses import dataclass

from pydantic import SecretStr

from worker.config.accounts_file import AccountSettings

DEFAULT_ACCOUNT = "default"
"""Name of the account that the settings speak of, and that is meant where none is named."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an account may send.

    Attributes:
        rate: requests per second.
        burst: requests that may follow each other without a pause after a quiet time.
        backfill_share: part of the rate that the backfill queue may use.
        daily_quota: requests in 24 hours, or None.
        live_reserve: part of the quota that the backfill queue leaves to what is live.
        leave_rate: requests per window of RiskOS that are left to others who use the key.
        leave_daily: requests per day of RiskOS that are left to them.
        shared_with: name of the account whose rate and quota these are; None where they are its own.
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
        """Return what an account may send; whoever only looks needs no key for that."""
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
    """A RiskOS API key and what belongs to it.

    Attributes:
        name: how it is called in ledger, limiter and manifests.
        environment: ``production`` or ``sandbox``.
        url: base URL of RiskOS.
        key: the API key, sealed.
        api_version: value of ``X-API-Version``, or None.
        allowance: what it may send.
    """

    name: str
    environment: str
    url: str
    key: SecretStr
    api_version: str | None
    allowance: Allowance

    @classmethod
    def from_settings(cls, known: AccountSettings) -> "Account":
        """Return an account as the work needs it.

        Raises:
            SettingsError: its key is missing.
        """
        settings = known.settings
        return cls(
            name=known.name,
            environment=settings.environment,
            url=settings.base_url,
            key=settings.need_api_key(),
            api_version=settings.api_version,
            allowance=Allowance.from_settings(known),
        )
