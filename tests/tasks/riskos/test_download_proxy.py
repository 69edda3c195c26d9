"""Requests to RiskOS go through the proxy of the account, and ignore the proxies of the environment."""

import ssl
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from pydantic import SecretStr

from tasks.errors import ConnectionFailed
from tasks.riskos.download import DownloadOptions, download
from tasks.riskos.response import NoBundle
from tests.archived_bundles import EVALUATION
from tests.proxies import http_proxy
from tests.riskos import KEY, Reply, account_at, json_reply, serve_replies, serve_requests
from tests.tls import server_context


async def test_a_request_goes_through_the_proxy_with_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login netrc-user password netrc-password\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serve_replies(json_reply(404, b'{"message": "Evaluation not found"}')) as riskos, http_proxy() as proxy:
        account = replace(account_at(riskos.url), proxy=SecretStr(proxy.url.replace("://", "://user:word@")))
        async with aiohttp.ClientSession() as http:
            answer = (await download(http, EVALUATION, account, DownloadOptions())).result
    assert isinstance(answer, NoBundle)
    (request,) = proxy.requests
    assert request.startswith(f"GET {riskos.url}/api/evaluation/{EVALUATION.eval_id}/documents HTTP/1.1")
    assert f"Authorization: Bearer {KEY}" in request
    assert "Proxy-Authorization: Basic dXNlcjp3b3Jk" in request


async def test_a_request_over_tls_goes_through_a_tunnel_of_a_proxy_with_a_login(tmp_path: Path) -> None:
    tls, authority = server_context(tmp_path)
    reply = Reply(json_reply(404, b'{"message": "Evaluation not found"}'))
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority))
    async with (
        serve_requests(lambda _: reply, tls) as riskos,
        http_proxy(login="user:w@rd") as proxy,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        account = replace(account_at(riskos.url), proxy=SecretStr(proxy.url.replace("://", "://user:w%40rd@")))
        for _ in range(2):
            assert isinstance((await download(http, EVALUATION, account, DownloadOptions())).result, NoBundle)
    (tunnel,) = proxy.requests
    assert tunnel.startswith(f"CONNECT {urlsplit(riskos.url).netloc} HTTP/1.1")
    assert KEY not in tunnel
    assert [request.headers["authorization"] for request in riskos.requests] == [f"Bearer {KEY}"] * 2
    assert not any("proxy-authorization" in request.headers for request in riskos.requests)


@pytest.mark.parametrize("login", ["", "user:wrong@"])
async def test_a_wrong_proxy_login_is_a_failed_connection_with_status_407(login: str) -> None:
    async with http_proxy(login="user:word") as proxy, aiohttp.ClientSession() as http:
        account = replace(
            account_at("https://riskos.example"), proxy=SecretStr(proxy.url.replace("://", f"://{login}"))
        )
        with pytest.raises(ConnectionFailed, match="ClientHttpProxyError 407"):
            await download(http, EVALUATION, account, DownloadOptions())


async def test_no_key_is_sent_when_the_proxy_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_proxy(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as proxy, aiohttp.ClientSession() as http:
        account = replace(account_at("https://riskos.example"), proxy=SecretStr(proxy.url))
        with pytest.raises(ConnectionFailed, match="ClientHttpProxyError"):
            await download(http, EVALUATION, account, DownloadOptions())
    (request,) = proxy.requests
    assert request.startswith("CONNECT riskos.example:443 ")
    assert KEY not in request
