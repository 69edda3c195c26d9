"""A machine, a network or a store fails while few evaluations run: none loses an attempt, and others continue."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.model.outcome import Outcome
from tasks.resilience.holds import Hold, Holds
from tests.bench.certificate import write_certificate
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.in_process_s3 import in_process_s3
from tests.faults.proxy import proxy_to
from tests.faults.scale import Scale
from tests.faults.sick_worker import COMMAND, FULL, NAMELESS
from tests.faults.watching import count_lost_attempts
from tests.riskos import S3State
from tests.tls import tls_server

Switch = Callable[[bool], Awaitable[None]]
Fault = Callable[[Cluster], AbstractAsyncContextManager[Switch]]
_RUN = "few"
_COUNTS = (1, 3, 9, 12)
_TEN_MINUTES = 600.0
_SETTINGS = {"DOCV_RETRY_SECONDS": "1", "DOCV_ATTEMPTS": "6"}


@asynccontextmanager
async def failing_bucket(state: S3State, cluster: Cluster) -> AsyncIterator[Switch]:
    async with in_process_s3() as s3:
        cluster.settings |= s3.settings

        async def switch(is_on: bool) -> None:  # noqa: FBT001  # as in the type Switch
            s3.scripted_s3.state = state if is_on else S3State.FINE

        yield switch


@asynccontextmanager
async def faulty_machine(defect: str, cluster: Cluster) -> AsyncIterator[Switch]:
    cluster.settings["DOCV_RISKOS_URL"] = cluster.riskos.url.replace("127.0.0.1", "localhost")

    async def switch(is_on: bool) -> None:  # noqa: FBT001
        file = cluster.folder / defect
        file.touch() if is_on else file.unlink()

    yield switch


@asynccontextmanager
async def refused_connection(cluster: Cluster) -> AsyncIterator[Switch]:
    async with proxy_to(_port_of_riskos(cluster)) as proxy:
        cluster.settings["DOCV_RISKOS_URL"] = f"http://127.0.0.1:{proxy.port}"

        async def switch(is_on: bool) -> None:  # noqa: FBT001
            if is_on:
                proxy.refuse()
            else:
                await proxy.listen()

        yield switch


@asynccontextmanager
async def wrong_certificate(cluster: Cluster) -> AsyncIterator[Switch]:
    folders = [cluster.folder / name for name in ("ours", "theirs")]
    for folder in folders:
        folder.mkdir()
    (authority, *ours), (_, *theirs) = map(write_certificate, folders)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours)
    with tls_server(context, _port_of_riskos(cluster)) as server:
        cluster.settings |= {"DOCV_RISKOS_URL": f"https://127.0.0.1:{server.port}", "SSL_CERT_FILE": str(authority)}

        async def switch(is_on: bool) -> None:  # noqa: FBT001
            context.load_cert_chain(*(theirs if is_on else ours))

        yield switch


def _port_of_riskos(cluster: Cluster) -> int:
    return int(cluster.riskos.url.rpartition(":")[2])


FAULTS: dict[str, tuple[Fault, str]] = {
    "access denied": (partial(failing_bucket, S3State.READ_ONLY), "AccessDenied"),
    "no bucket": (partial(failing_bucket, S3State.GONE), "the bucket does not exist"),
    "expired token": (partial(failing_bucket, S3State.EXPIRED), "ExpiredToken"),
    "disk full": (partial(faulty_machine, FULL), "the disk of DOCV_ARCHIVE_URL is full"),
    "RiskOS refusing connections": (refused_connection, "Connection refused"),
    "DNS": (partial(faulty_machine, NAMELESS), "ClientConnectorDNSError"),
    "TLS": (wrong_certificate, "ClientConnectorCertificateError"),
}
_SHORT = {"access denied", "RiskOS refusing connections"}


async def wait_for_hold(cluster: Cluster) -> Hold:
    async with asyncio.timeout(90):
        while not (holds := await Holds(cluster.client).list_all()):
            await asyncio.sleep(0.1)
    return holds[0]


async def run_with_fault(fault: Fault, note: str, count: int, seconds: float, folder: Path) -> int:
    """Run one worker with a fault for a while; return how many attempts it cost."""
    eval_ids = [eval_id_for(Scenario.PASSPORT, number) for number in range(count)]
    async with running_cluster(folder, **_SETTINGS) as cluster, fault(cluster) as switch:
        await cluster.start_workers(1, *COMMAND)
        await switch(True)  # noqa: FBT003
        await cluster.enqueue(eval_ids, run=_RUN)
        hold = await wait_for_hold(cluster)
        await asyncio.sleep(seconds)
        lost = await count_lost_attempts(cluster)
        await switch(False)  # noqa: FBT003
        counters = await cluster.wait_until_all_ended(_RUN, count, seconds=120)
    assert note in hold.note, hold
    assert counters.outcomes[Outcome.ARCHIVED] == count
    return lost


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_machine_costs_no_attempt_when_few_evaluations_run(
    name: str, scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if not scale.long and name not in _SHORT:
        pytest.skip("only the long form tries it; unit tests cover each fault")
    fault, note = FAULTS[name]
    counts = _COUNTS if scale.long else (3,)
    lost = await asyncio.gather(
        *[run_with_fault(fault, note, count, scale.outage, tmp_path / str(count)) for count in counts]
    )
    figures(f"{name} for {scale.outage:.0f} s, {counts} evaluations: attempts lost {sum(lost)}, dead letters 0")
    assert sum(lost) == 0


async def test_a_fault_of_the_machine_costs_no_attempt_when_it_lasts_ten_minutes(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if not scale.long:
        pytest.skip("it takes ten minutes")
    fault, note = FAULTS["expired token"]
    assert await run_with_fault(fault, note, 9, _TEN_MINUTES, tmp_path / "stage") == 0
    figures("expired token for 600 s, 9 evaluations: attempts lost 0, dead letters 0")


@pytest.mark.parametrize("defect", [FULL, NAMELESS])
async def test_a_second_machine_keeps_working_while_the_first_is_faulty_and_the_first_recovers(
    defect: str, scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    if defect != FULL and not scale.long:
        pytest.skip("the long form has it")
    eval_ids = [eval_id_for(Scenario.PASSPORT, number) for number in range(43)]
    async with running_cluster(tmp_path / "stage", **_SETTINGS) as cluster, faulty_machine(defect, cluster) as switch:
        cluster.riskos.change(latency_ms=100)
        (faulty,) = await cluster.start_workers(1, *COMMAND)
        (healthy,) = await cluster.start_workers(1)
        await switch(True)  # noqa: FBT003
        await cluster.enqueue(eval_ids[:40], run=_RUN)
        await cluster.wait_until_all_ended(_RUN, 40)
        held = await Holds(cluster.client).list_all()
        await switch(False)  # noqa: FBT003
        await cluster.terminate(healthy)
        await cluster.enqueue(eval_ids[40:], run="later")
        later = await cluster.wait_until_all_ended("later", 3, seconds=120)
        first = await cluster.counters(_RUN)
        log = faulty.log.read_text()
    figures(f"one of two machines {defect}: the other archives all, on hold {len(held)}, then the first continues")
    assert first
    assert (first.outcomes[Outcome.ARCHIVED], later.outcomes[Outcome.ARCHIVED], held) == (40, 3, [])
    assert "worker.paused" in log
