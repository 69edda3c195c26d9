"""Build the context of each account's evaluations: its own RiskOS client, and the parts that all accounts share."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from tasks.bundle.documents import KindPattern
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.consumer.concurrency import ConcurrencyLimiter
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.leftovers import Leftovers
from tasks.memory.bundle_memory import BundleMemory
from tasks.memory.byte_budget import ByteBudget
from tasks.model.account import Account
from tasks.model.job import Queue
from tasks.pipeline.pipeline import ConfirmLease, LeaseWatch, PipelineContext
from tasks.pipeline.reread import RereadContext
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, Holds
from tasks.resilience.permission import PermissionMonitor
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.resilience.worker_pause import WorkerPause
from tasks.retention.schedule import Schedule
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from worker.config.accounts import Accounts
from worker.config.settings import Settings
from worker.resources import Resources

_EXPLAINED_QUEUES = {"off": frozenset[Queue](), "live": frozenset({Queue.LIVE}), "all": frozenset(Queue)}


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The parts that the contexts of all accounts of a process share.

    Attributes:
        bucket: the archive.
        holds: the holds of all processes.
        rate_limiter: grants the permits.
        pause: the pause of this worker.
        concurrency: hands out the slots of this process.
        leases: the leases of this process.
        leftovers: records objects that were written for an evaluation while it was erased.
        schedule: the retention schedule, or None.
    """

    bucket: Bucket
    holds: Holds
    rate_limiter: RateLimiter
    pause: WorkerPause
    concurrency: ConcurrencyLimiter
    leases: LeaseKeeper
    leftovers: Leftovers
    schedule: Schedule | None = None


class AccountContexts:
    """The contexts of the accounts that a process knows.

    Args:
        contexts: one for each account, by its name.
        gate: the gate of the archive.
        breaker: the circuit breaker of the archive.
    """

    def __init__(self, contexts: Mapping[str, PipelineContext], gate: ArchiveGate, breaker: CircuitBreaker) -> None:
        self._contexts, self.gate, self._breaker = contexts, gate, breaker

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the accounts."""
        return tuple(self._contexts)

    def get(self, account: str) -> PipelineContext | None:
        """Return the context of an account; None if this process does not know it."""
        return self._contexts.get(account)

    async def flush(self) -> None:
        """Publish the results of this process's requests to the other processes."""
        clients = [ctx.client for ctx in self._contexts.values()]
        await asyncio.gather(
            self._breaker.flush(),
            *(client.adaptive_rate.flush() for client in clients),
            *(client.permissions.flush() for client in clients),
        )


def make_account_contexts(
    settings: Settings, accounts: Accounts, resources: Resources, shared: SharedParts
) -> AccountContexts:
    """Return the contexts of the accounts: each has its own RiskOS client, and all share the rest."""
    # Successes with the archive count for all accounts, so all breakers of a process count them together.
    successes = Counter[str]()
    breaker = CircuitBreaker(resources.redis, ARCHIVE, shared.holds, shared.pause, successes)
    gate = ArchiveGate(shared.holds, breaker)
    shares = settings.concurrency if len(tuple(accounts)) > 1 else 1
    bundle_memory = BundleMemory(_quarter(settings), shares)
    uploads = ByteBudget(_quarter(settings))
    make_context = partial(
        PipelineContext,
        gate=gate,
        target=_make_upload_target(settings, resources, shared.bucket, uploads),
        manifests=shared.bucket,
        unpacker=_make_unpacker(settings, resources),
        bundle_memory=bundle_memory,
        restricted_target=_make_restricted_target(settings, resources, uploads),
        explained_queues=_EXPLAINED_QUEUES[settings.explain],
        acquire_slot=shared.concurrency.slot,
        confirm_lease=shared.leases.confirm,
        watch=LeaseWatch(shared.leases.is_fresh, shared.leases.attempt, shared.leftovers.add),
        retention=RetentionPolicy(shared.schedule, settings.lock_days),
    )
    clients = [
        _make_client(settings, Account.from_settings(each), resources, shared, successes, bundle_memory.largest)
        for each in accounts
    ]
    return AccountContexts({client.account.name: make_context(client) for client in clients}, gate, breaker)


def _make_client(
    settings: Settings,
    account: Account,
    resources: Resources,
    shared: SharedParts,
    successes: Counter[str],
    largest_bundle: int,
) -> RiskOSClient:
    redis, name = resources.redis, account.name
    return RiskOSClient(
        http=resources.http[name],
        account=account,
        rate_limiter=shared.rate_limiter,
        holds=shared.holds,
        adaptive_rate=AdaptiveRate(redis, name, account.allowance, shared.holds),
        breaker=CircuitBreaker(redis, name, shared.holds, shared.pause, successes),
        permissions=PermissionMonitor(redis, name),
        options=DownloadOptions(
            max_bundle_bytes=settings.max_bundle_bytes,
            no_documents_texts=settings.no_documents_texts,
            gateway_texts=settings.gateway_texts,
            in_memory=largest_bundle,
            spool_dir=resources.spool_dir,
        ),
        retry_policy=RetryPolicy(attempts=settings.attempts, retry_delay=settings.retry_seconds),
    )


def make_reread_context(
    settings: Settings,
    resources: Resources,
    schedule: Schedule | None,
    *,
    at_once: int,
    confirm_lease: ConfirmLease,
    watch: LeaseWatch,
    lenient: bool,
) -> RereadContext:
    """Return the context for rereading bundles in quarantine in the same way as a worker with these settings.

    Args:
        schedule: the retention schedule, or None.
        at_once: maximum number of bundles that are read at the same time.
    """
    from tasks.storage.encrypted_bucket import EncryptedBucket  # noqa: PLC0415  # see _make_upload_target
    from tasks.storage.encryption import Keyring  # noqa: PLC0415

    bucket = open_bucket(
        resources.archive, settings.storage_class, resources.write_client, tag_client=resources.tag_client
    )
    uploads = ByteBudget(_quarter(settings))
    return RereadContext(
        quarantine=EncryptedBucket(bucket, Keyring.of(settings.keyring_texts())),
        target=_make_upload_target(settings, resources, bucket, uploads),
        manifests=bucket,
        unpacker=_make_unpacker(settings, resources),
        restricted_target=_make_restricted_target(settings, resources, uploads),
        confirm_lease=confirm_lease,
        watch=watch,
        in_memory=min(BundleMemory(_quarter(settings)).largest, _quarter(settings) // at_once),
        spool_dir=resources.spool_dir,
        lenient=lenient,
        retention=RetentionPolicy(schedule, settings.lock_days),
    )


def _quarter(settings: Settings) -> int:
    """Return a quarter of the memory, in bytes: one each for bundles, documents, uploads and everything else."""
    return settings.memory_bytes // 4


def _make_unpacker(settings: Settings, resources: Resources) -> BundleUnpacker:
    limits = Limits(
        max_documents=settings.max_documents,
        max_unpacked_bytes=settings.max_unpacked_bytes,
        max_document_bytes=settings.max_document_bytes,
        max_ratio=settings.max_ratio,
        in_memory=_quarter(settings) // 2,
    )
    patterns = [KindPattern.of(text) for text in settings.kind_patterns]
    return BundleUnpacker(limits, ByteBudget(_quarter(settings)), resources.spool_dir, patterns)


def _make_restricted_target(settings: Settings, resources: Resources, uploads: ByteBudget) -> UploadTarget | None:
    """Return the target for documents of military IDs and minors: without a lock, so that they can be erased."""
    if settings.restricted != "archive":
        return None
    write_client = resources.write_client and resources.write_client.without_lock()
    bucket = open_bucket(resources.archive, settings.storage_class, write_client, resources.tag_client)
    return _make_upload_target(settings, resources, bucket, uploads)


def _make_upload_target(settings: Settings, resources: Resources, bucket: Bucket, uploads: ByteBudget) -> UploadTarget:
    if not settings.encryption_keys:
        return UploadTarget(bucket, settings.tags, uploads=uploads, put_seconds=settings.put_seconds)
    # Imported lazily: cryptography takes 6 MB, and only encrypted archives need it.
    from tasks.storage.encrypted_bucket import EncryptedBucket  # noqa: PLC0415
    from tasks.storage.encryption import Keyring  # noqa: PLC0415

    keyring = Keyring.of(settings.keyring_texts())
    assert keyring  # noqa: S101  # there are keys
    sealed = EncryptedBucket(bucket, keyring, resources.spool_dir)
    return UploadTarget(
        sealed, settings.tags, sealed_with=keyring.current, uploads=uploads, put_seconds=settings.put_seconds
    )
