"""The proxy for requests to RiskOS comes from the settings, or otherwise from the environment."""

import pytest
from pydantic import SecretStr

from worker.config.settings import Settings, SettingsError

RISKOS = "https://riskos.example"


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def proxy_of(url: str = RISKOS, proxy: str | None = None) -> str | None:
    found = Settings(riskos_url=url, proxy=SecretStr(proxy) if proxy else None).find_proxy()
    return found.get_secret_value() if found else None


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, RISKOS, None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, RISKOS, "http://proxy.example:3128"),
        ({"https_proxy": "http://user:word@proxy.example:3128"}, RISKOS, "http://user:word@proxy.example:3128"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, RISKOS, "http://proxy.example:3128"),
        ({"ALL_PROXY": "http://proxy.example:3128"}, RISKOS, "http://proxy.example:3128"),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, RISKOS, None),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "riskos.example"}, RISKOS, None),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": ".example"}, RISKOS, None),
        ({"HTTPS_PROXY": "http://proxy.example", "no_proxy": "*"}, RISKOS, None),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "riskos.example:8443"}, f"{RISKOS}:8443", None),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "s3.example"}, RISKOS, "http://proxy.example"),
        ({"HTTP_PROXY": "http://proxy.example"}, "http://127.0.0.1:8080", None),
        ({"HTTP_PROXY": "http://127.0.0.1:3128"}, "http://127.0.0.1:8080", "http://127.0.0.1:3128"),
    ],
)
def test_the_proxy_of_the_environment_is_found(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy


def test_the_proxy_of_the_settings_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://another.example")
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_of(proxy="proxy.example:3128") == "http://proxy.example:3128"


@pytest.mark.parametrize("proxy", ["socks5://user:geheim@proxy.example", "http://", "http://user:ge/heim@proxy"])
def test_an_invalid_proxy_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SettingsError, match=r"^HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: .*DOCV_PROXY$") as caught:
        proxy_of()
    assert "heim" not in str(caught.value)


def test_the_password_of_the_proxy_is_a_secret() -> None:
    assert "geheim" in Settings(proxy=SecretStr("http://user:geheim@proxy.example")).secrets()
