"""What the evaluations of each account are worked on with: a RiskOS client of its own, and what all have together."""

import asyncio
from collections import Counter
from dataclasses import replace

from tasks.bundle.documents import KindPattern
from tasks.bundle.unpack import Limits
from tasks.bundle.unpacker import BundleUnpacker
from tasks.memory.byte_budget import ByteBudget
from tasks.model.account import Account
from tasks.pipeline.pipeline import AcquireSlot, ConfirmLease, PipelineContext
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import Holds
from tasks.resilience.permission import PermissionMonitor
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import Bucket
from worker.config.accounts import Accounts
from worker.config.settings import Settings
from worker.resources import Resources

_LARGE_BUNDLE = 8 << 20


class AccountContexts:
    """The contexts of one process, a handful of objects for each account.

    Args:
        settings: of this process.
        accounts: that it knows.
        resources: what is open.
        bucket: of the archive.
        rate_limiter: grants permits.
        acquire_slot: what gives an evaluation of a queue its slot.
        confirm_lease: what sees that an evaluation is still ours.
    """

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        resources: Resources,
        bucket: Bucket,
        rate_limiter: RateLimiter,
        *,
        acquire_slot: AcquireSlot,
        confirm_lease: ConfirmLease,
    ) -> None:
        self._settings, self._resources, self._rate_limiter = settings, resources, rate_limiter
        self._acquire_slot, self._confirm_lease = acquire_slot, confirm_lease
        self._holds, self._successes = Holds(resources.redis), Counter[str]()
        # Half for what arrives, half for what is unpacked.
        self._memory_bytes = settings.memory_bytes // 2
        clients = {each.name: self._make_client(Account.from_settings(each)) for each in accounts}
        # What went well with the archive did so for all of them, so any of the breakers can say it.
        any_client = next(iter(clients.values()))
        self._breaker = any_client.breaker
        self.gate = ArchiveGate(self._holds, self._breaker)
        common = self._make_context(any_client, bucket)
        self._contexts = {name: replace(common, client=client) for name, client in clients.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the accounts."""
        return tuple(self._contexts)

    def get(self, account: str) -> PipelineContext | None:
        """Return what evaluations of an account are worked on with; None where this process does not know it."""
        return self._contexts.get(account)

    async def flush(self) -> None:
        """Tell the other processes how it went."""
        clients = [ctx.client for ctx in self._contexts.values()]
        await asyncio.gather(
            self._breaker.flush(),
            *(client.adaptive_rate.flush() for client in clients),
            *(client.permissions.flush() for client in clients),
        )

    def _make_client(self, account: Account) -> RiskOSClient:
        settings, resources = self._settings, self._resources
        return RiskOSClient(
            http=resources.http[account.name],
            account=account,
            rate_limiter=self._rate_limiter,
            holds=self._holds,
            adaptive_rate=AdaptiveRate(resources.redis, account.name, account.allowance, self._holds),
            breaker=CircuitBreaker(resources.redis, account.name, self._holds, self._successes),
            permissions=PermissionMonitor(resources.redis, account.name),
            options=DownloadOptions(
                max_bundle_bytes=settings.max_bundle_bytes,
                no_documents_texts=settings.no_documents_texts,
                gateway_texts=settings.gateway_texts,
                in_memory=min(_LARGE_BUNDLE, self._memory_bytes // settings.concurrency),
                spool_dir=resources.spool_dir,
            ),
            retry_policy=RetryPolicy(attempts=settings.attempts, retry_delay=settings.retry_seconds),
        )

    def _make_context(self, client: RiskOSClient, bucket: Bucket) -> PipelineContext:
        """Return the context with one of the clients; all else is the same for all of them, memory included."""
        settings, spool_dir = self._settings, self._resources.spool_dir
        return PipelineContext(
            client=client,
            gate=self.gate,
            target=self._make_upload_target(bucket),
            manifests=bucket,
            unpacker=BundleUnpacker(
                Limits(
                    max_documents=settings.max_documents,
                    max_unpacked_bytes=settings.max_unpacked_bytes,
                    max_document_bytes=settings.max_document_bytes,
                    max_ratio=settings.max_ratio,
                    in_memory=self._memory_bytes // 4,
                ),
                ByteBudget(self._memory_bytes),
                spool_dir,
                avoid_blocking=lambda: self._rate_limiter.has_waiters,
                kind_patterns=[KindPattern.of(text) for text in settings.kind_patterns],
            ),
            acquire_slot=self._acquire_slot,
            confirm_lease=self._confirm_lease,
        )

    def _make_upload_target(self, bucket: Bucket) -> UploadTarget:
        settings = self._settings
        if not settings.encryption_keys:
            return UploadTarget(bucket, settings.tags)
        # Imported lazily: cryptography takes 6 MB, and only encrypted archives need it.
        from tasks.storage.encrypted_bucket import EncryptedBucket  # noqa: PLC0415
        from tasks.storage.encryption import Keyring  # noqa: PLC0415

        keyring = Keyring.of(settings.keyring_texts())
        assert keyring  # noqa: S101  # there are keys
        sealed = EncryptedBucket(bucket, keyring, self._resources.spool_dir)
        return UploadTarget(sealed, settings.tags, sealed_with=keyring.current)
