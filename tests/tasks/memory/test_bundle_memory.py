import asyncio
import contextlib

from tasks.memory.bundle_memory import BundleMemory


async def test_reservations_are_limited_by_the_memory_for_bundles() -> None:
    memory, most, at_once = BundleMemory(64 << 20), 0, 0
    for _ in range(100):
        memory.record(4_000_000)

    async def reserve() -> None:
        nonlocal most, at_once
        async with memory.reserve(is_live=False):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

    await asyncio.gather(*(reserve() for _ in range(50)))
    assert most == (56 << 20) // 4_000_000


async def test_a_live_bundle_gets_memory_when_the_backfill_has_its_maximum() -> None:
    memory = BundleMemory(64 << 20)
    async with memory.reserve(is_live=False) as backfill:
        await backfill.resize(56 << 20)
        assert not backfill.try_grow((56 << 20) + 1)
        memory.record(1 << 30)
        async with asyncio.timeout(60), memory.reserve(is_live=True) as live:
            assert live.amount == 8 << 20


async def test_the_expected_size_follows_recent_answers() -> None:
    memory = BundleMemory(64 << 20)
    amounts = []
    for size in (*[4_000_000] * 200, *[0] * 50):
        memory.record(size)
        async with memory.reserve(is_live=False) as reserved:
            amounts.append(reserved.amount)
    assert 3_900_000 < amounts[49] < amounts[199] == 4_000_000
    assert amounts[-1] == 1 << 18


async def test_each_waiting_evaluation_reserves_at_most_its_share() -> None:
    memory = BundleMemory(64 << 20, shares=56)
    memory.record(1 << 30)
    async with contextlib.AsyncExitStack() as waiting, asyncio.timeout(60):
        for _ in range(56):
            reserved = await waiting.enter_async_context(memory.reserve(is_live=False))
            assert reserved.amount == 1 << 20
