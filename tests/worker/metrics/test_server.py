"""A worker serves its metrics and health over HTTP."""

import contextlib
import gzip
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from tests.counting import samples
from worker.clients.errors import ServiceUnavailable
from worker.metrics.server import serve_metrics

REGISTRY = CollectorRegistry()
Gauge("docv_example", "Always 7.", registry=REGISTRY).set(7)


def healthy() -> None:
    """Return no problem."""


@pytest.fixture
def url() -> Iterator[str]:
    with serve_metrics(REGISTRY, healthy, "127.0.0.1", 0) as url:
        yield url


def get(url: str, **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=named), timeout=60) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def test_metrics_and_health_have_routes_and_other_paths_are_not_found(url: str) -> None:
    status, page = get(f"{url}/metrics")
    assert (status, samples(page.decode())) == (200, {"docv_example": 7})
    assert get(f"{url}/livez") == (200, b"alive\n")
    assert [get(f"{url}{path}")[0] for path in ("/", "/other", "/metrics/", "/livez/x")] == [404] * 4


def test_a_scraper_that_accepts_gzip_gets_a_compressed_page(url: str) -> None:
    status, page = get(f"{url}/metrics", Accept_Encoding="gzip")
    assert (status, samples(gzip.decompress(page).decode())) == (200, {"docv_example": 7})


def test_a_stalled_worker_answers_livez_with_503() -> None:
    with serve_metrics(REGISTRY, lambda: "its event loop has not moved for 31 s", "127.0.0.1", 0) as url:
        assert get(f"{url}/livez") == (503, b"its event loop has not moved for 31 s\n")


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\n"], ids=["silent", "half a request"])
def test_clients_that_stop_sending_do_not_block_others(url: str, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.metrics.server._RequestHandler.timeout", 600.0)  # no silent client is dropped
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address_of(url), timeout=60)) for _ in range(40)]
        for client in clients:
            client.sendall(sent)
        assert get(f"{url}/metrics")[0] == 200
        # The oldest connection was closed, the latest ones are open.
        assert clients[0].recv(1) == b""
        clients[-1].sendall(b"\r\n" if sent else b"GET /livez HTTP/1.1\r\n\r\n")
        assert clients[-1].recv(1024).startswith(b"HTTP/1.0 200")


def test_a_silent_client_is_dropped(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.metrics.server._RequestHandler.timeout", 0.1)
    with socket.create_connection(address_of(url), timeout=60) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize("sent", [b"x" * 70_000, b"GET\r\n\r\n", b"\0\xff\r\n\r\n", b"GET / HTTP/9\r\n\r\n"])
def test_a_server_survives_malformed_requests_and_prints_nothing(
    url: str, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(address_of(url), timeout=60) as client, contextlib.suppress(OSError):
        client.sendall(sent)
        client.recv(65_536)
    assert get(f"{url}/livez") == (200, b"alive\n")
    assert capfd.readouterr().err == ""


def test_an_ipv6_address_has_brackets_in_the_url() -> None:
    with serve_metrics(REGISTRY, healthy, "::1", 0) as url:
        assert url.startswith("http://[::1]:")
        assert get(f"{url}/livez") == (200, b"alive\n")


def test_an_address_in_use_is_reported_in_one_sentence_with_a_fix(url: str) -> None:
    _, port = address_of(url)
    with (
        pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port} cannot be used .*DOCV_METRICS_PORT") as refused,
        serve_metrics(REGISTRY, healthy, "127.0.0.1", port),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_the_port_is_free_again_afterwards() -> None:
    with serve_metrics(REGISTRY, healthy, "127.0.0.1", 0) as first:
        pass
    _, port = address_of(first)
    with serve_metrics(REGISTRY, healthy, "127.0.0.1", port) as second:
        assert second == first
