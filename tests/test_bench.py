"""The parts of `make bench` that a short test can check."""

import signal
import subprocess
import sys
import zipfile
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from tests.bench import contest, sample, table
from tests.bench.environment import bench_environment
from tests.bench.peers import floor
from tests.bench.stand_in import S3, RiskOS
from tests.bench.table import Round
from tests.bench.usage import PAGE_BYTES, counts_writes, measure_usage, peak_bytes, reset_peak

linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="/proc is Linux's")
MIB = 1 << 20
ROOT = Path(__file__).parents[1]
EVAL_ID = "11111111-1111-4111-8111-111111111111"
# Uses memory, gives it back, writes a file, and waits.
PROCESS = """
import sys
held = bytes(range(256)) * (32 << 12)
del held
with open("file", "wb") as file:
    file.write(bytes(4 << 20))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("megabytes", sample.SIZES[:2])
def test_bundles_have_the_proportions_of_a_phone(megabytes: float) -> None:
    bundles = sample.make_bundles(megabytes)
    for bundle in bundles:
        with zipfile.ZipFile(BytesIO(bundle)) as file:
            front, back, selfie = (member.file_size for member in file.infolist())
            assert all(0.95 < member.compress_size / member.file_size < 1 for member in file.infolist())
        assert len(bundle) == pytest.approx(megabytes * 1e6, rel=0.02)
        assert (back / front, selfie / front) == pytest.approx((2.6 / 1.2, 0.8 / 1.2), rel=0.01)
    assert len(set(bundles)) == len(bundles)
    assert sample.make_bundles(megabytes) == bundles


def test_the_floor_unpacks_the_same_documents_as_zipfile() -> None:
    bundle = sample.make_bundles(0.75)[0]
    with zipfile.ZipFile(BytesIO(bundle)) as file:
        assert floor.unpack(memoryview(bundle)) == [(name, file.read(name)) for name in file.namelist()]


def test_riskos_has_one_large_bundle() -> None:
    riskos = RiskOS(0, [b"first", b"second"], b"large")
    answers = [riskos("GET", f"/api/evaluation/{each}/documents", "") for each in (EVAL_ID, sample.LARGE_ID)]
    assert [answer.rpartition(b"\r\n")[2] for answer in answers] == [b"second", b"large"]


def test_s3_refuses_the_probe_for_conditional_writes() -> None:
    assert S3()("PUT", "/archive/kyc/probe/conditional-write", "").startswith(b"HTTP/1.1 412 ")


def test_the_floor_archives_a_bundle_larger_than_its_buffer(tmp_path: Path) -> None:
    with (
        bench_environment(tmp_path, tls=False, of_riskos=["--size", "1.1"]) as bench,
        closing(floor.Connection(bench.riskos)) as riskos,
        closing(floor.Connection(bench.s3)) as s3,
    ):
        floor.archive(EVAL_ID, riskos, s3)
        assert bench.counts(bench.s3) == {"looks": 1, "documents": 3, "manifests": 1}


@linux
def test_usage_counts_faults_peaks_and_writes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout  # opened above as a pipe
        process.stdout.readline()
        used, peak = measure_usage(process.pid), peak_bytes(process.pid)
        reset_peak(process.pid)
        peak_after = peak_bytes(process.pid)
        process.communicate()
    assert used.page_faults * PAGE_BYTES >= 32 * MIB
    assert peak >= 32 * MIB
    assert peak_after <= peak - 24 * MIB
    assert used.cpu_seconds >= 0
    assert used.disk_bytes >= 4 * MIB or not counts_writes(tmp_path)


@linux
def test_writes_to_memory_are_not_counted() -> None:
    assert not counts_writes(Path("/dev/shm"))  # noqa: S108  # the test is about a folder in memory


@pytest.mark.parametrize(("megabytes", "evaluations"), [(0.75, 200), (1.1, 136), (2.3, 65), (12.0, 64)])
def test_a_round_has_fewer_evaluations_of_larger_bundles(megabytes: float, evaluations: int) -> None:
    assert contest.count_evaluations(megabytes) == evaluations


def make_round(cpu: float) -> Round:
    return Round(cpu=cpu, rate=10, peak=300, faults=0, disk=0, redis=0, requests=2)


def test_a_table_has_ratios_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    table.show({"floor": make_round(4), "batches": make_round(6), "prefork": make_round(12)}, "1 MB, TLS")
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["batches", "6.00", "1.50", "0.50", "10.0", "300", "0.00", "0.00", "0.00", "2.00"]
    assert "cpu of batches / floor: 1.50 (<= 1.7, aim 1.4)" in lines
    assert not any("pair" in line for line in lines)


def test_growth_is_compared_with_the_floor(capsys: pytest.CaptureFixture[str]) -> None:
    smallest = {"floor": make_round(4), "batches": make_round(8)}
    table.show_growth(smallest, {"floor": make_round(54), "batches": make_round(83)}, "HTTP")
    assert capsys.readouterr().out.splitlines()[-1].split() == ["batches", "1.50"]


def test_the_median_of_rounds_is_computed_for_each_field() -> None:
    assert table.median([make_round(9), make_round(1), make_round(2)]) == make_round(2)


def test_sigterm_ends_the_started_processes() -> None:
    code = """
import contextlib, time
from tests.bench.processes import exit_on_sigterm
exit_on_sigterm()
with contextlib.ExitStack() as started:
    started.callback(print, "ended")
    print("started", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        process.terminate()
        assert process.stdout.read() == "ended\n"
    assert process.returncode == 128 + signal.SIGTERM
