"""Connections to other machines without TLS are reported, and refused with DOCV_STRICT."""

import pytest
from pydantic import ValidationError

from worker.config.accounts import load_accounts
from worker.config.settings import Settings

S3 = "DOCV_S3_ENDPOINT: plain http"
REDIS = "DOCV_REDIS_URL: redis://"
UNCHECKED = "DOCV_REDIS_URL: the certificate"
BROKER = "DOCV_BROKER_URL: amqp://"

FOREIGN = [
    ({"s3_endpoint": "http://s3.example.com"}, S3),
    ({"s3_endpoint": "http://10.1.2.3:9000"}, S3),
    ({"s3_endpoint": "HTTP://s3.example.com"}, S3),
    ({"s3_endpoint": "http://localhost.example.com"}, S3),
    ({"redis_url": "redis://redis:6379/0"}, REDIS),
    ({"redis_url": "redis://:geheim@[2001:db8::1]:6379/0"}, REDIS),
    ({"redis_url": "redis+sentinel://127.0.0.1,two.example/docv"}, REDIS),
    ({"redis_url": "rediss://redis.example/0?ssl_cert_reqs=none"}, UNCHECKED),
    ({"redis_url": "rediss://redis.example/0?ssl_cert_reqs=CERT_NONE"}, UNCHECKED),
    ({"redis_url": "rediss://redis.example/0?ssl_check_hostname=False"}, UNCHECKED),
    ({"broker_url": "amqp://user:geheim@rabbit.example//"}, BROKER),
    ({"broker_url": "amqp://127.0.0.1//;amqp://rabbit.example//"}, BROKER),
]
SAFE: list[dict[str, str]] = [
    {},
    {"s3_endpoint": "https://s3.example.com"},
    {"s3_endpoint": "http://localhost:8333"},
    {"s3_endpoint": "http://127.0.0.2:8333"},
    {"s3_endpoint": "http://[::1]:8333"},
    {"redis_url": "redis://localhost:6379/0"},
    {"redis_url": "redis://127.0.0.1"},
    {"redis_url": "unix:///run/redis.sock"},
    {"redis_url": "rediss://redis.example:6380/0?ssl_ca_certs=/etc/ours.pem&ssl_cert_reqs=required"},
    {"redis_url": "redis+sentinel://127.0.0.1,localhost/docv"},
    {"redis_url": "rediss+sentinel://one.example/docv"},
    {"broker_url": "amqps://rabbit.example//"},
    {"broker_url": "amqp://guest:guest@127.0.0.1//"},
]


def read(**values: object) -> Settings:
    return Settings(**values)  # type: ignore[arg-type]  # pydantic checks them and wraps the secrets


@pytest.mark.parametrize(("values", "sentence"), FOREIGN)
def test_a_plain_connection_to_another_machine_is_a_warning_or_an_error_if_strict(
    values: dict[str, str], sentence: str
) -> None:
    (warning,) = load_accounts(read(**values)).warnings
    assert warning.startswith(sentence)
    assert "geheim" not in warning
    with pytest.raises(ValidationError, match=f"{sentence}.*DOCV_STRICT"):
        read(**values, strict=True)


@pytest.mark.parametrize("values", SAFE)
def test_a_connection_with_tls_or_on_this_machine_is_accepted_without_a_warning(values: dict[str, str]) -> None:
    assert load_accounts(read(**values, strict=True)).warnings == ()


def test_all_plain_connections_are_reported_together() -> None:
    values = {"s3_endpoint": "http://s3.example.com", "redis_url": "redis://redis", "broker_url": "amqp://rabbit"}
    assert len(load_accounts(read(**values)).warnings) == 3
