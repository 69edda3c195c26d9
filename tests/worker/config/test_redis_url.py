"""The URL of Redis names a server, or the Sentinels that monitor it."""

import pytest

from worker.config.redis_url import SentinelUrl, check_redis_url, is_sentinel_url, parse_sentinel_url

PASSWORD = "s3cr3t/w0rd"


@pytest.mark.parametrize(
    "url", ["redis://host", "redis://:word@host:6379/3", "rediss://host:6380", "unix:///run/redis.sock?db=2"]
)
def test_the_url_of_a_server_is_accepted(url: str) -> None:
    check_redis_url(url)
    assert not is_sentinel_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+sentinel://one/docv", SentinelUrl((("one", 26379),), "docv")),
        (
            "redis+sentinel://archiver:s3cr3t%2Fw0rd@one:26379,two.example:26380,[::1]:1/my-redis.2/3",
            SentinelUrl((("one", 26379), ("two.example", 26380), ("::1", 1)), "my-redis.2", 3, "archiver", PASSWORD),
        ),
        ("redis+sentinel://:s3cr3t%2Fw0rd@one/docv/0", SentinelUrl((("one", 26379),), "docv", 0, None, PASSWORD)),
        (
            "redis+sentinel://one/docv?sentinel_username=asker&sentinel_password=s3cr3t%2Fw0rd",
            SentinelUrl((("one", 26379),), "docv", sentinel_username="asker", sentinel_password=PASSWORD),
        ),
        ("rediss+sentinel://one/docv", SentinelUrl((("one", 26379),), "docv", tls={})),
        (
            "rediss+sentinel://one/docv/1?ssl_ca_certs=/etc/ours.pem",
            SentinelUrl((("one", 26379),), "docv", 1, tls={"ssl_ca_certs": "/etc/ours.pem"}),
        ),
    ],
)
def test_a_url_with_sentinels_is_parsed(url: str, expected: SentinelUrl) -> None:
    check_redis_url(url)
    assert is_sentinel_url(url)
    assert parse_sentinel_url(url) == expected
    assert PASSWORD not in repr(expected)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://",
        "redis+sentinel:///docv",
        "redis+sentinel://one",
        "redis+sentinel://one/",
        "redis+sentinel://one,/docv",
        "redis+sentinel://one:0/docv",
        "redis+sentinel://one:99999/docv",
        "redis+sentinel://one/docv/zero",
        "redis+sentinel://one/docv/0/more",
        "redis+sentinel://one/docv?db=1",
        "redis+sentinel://one/docv?ssl_ca_certs=/etc/ours.pem",
        "rediss+sentinel://one/docv?ssl_cert_reqs=none",
        "rediss+sentinel://one",
        "redis+sentinel://one;two/docv",
    ],
)
def test_an_invalid_url_with_sentinels_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected redis\+sentinel://host:26379,host:26379/service/0$"):
        check_redis_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host", "expected redis://host:6379/0"),
        ("redis://host:port", "check host and port"),
        ("redis:///0", "expected redis://host:6379/0"),
        ("unix://", "unix:///path"),
        ("redis://host/name", "number of a database"),
        ("redis://host/0/1", "number of a database"),
        ("redis://host/0?db=one", "db cannot be used"),
        ("redis://host/0?socket_timeout=5", "socket_timeout cannot be used: only db may follow"),
        ("redis://host/0?timeout=5", "timeout cannot be used"),
        ("redis://host/0?max_connections=5", "max_connections cannot be used"),
        ("redis://host/0?health_check_interval=10", "health_check_interval cannot be used"),
        ("redis://host/0?socket_keepalive=1", "socket_keepalive cannot be used"),
        ("redis://host/0?ssl_cert_reqs=none", "ssl_cert_reqs cannot be used"),
        ("unix:///run/redis.sock?virtual_host=1", "virtual_host cannot be used"),
        ("unix:///run/redis.sock?password=word", "password cannot be used"),
        (
            "rediss://host/0?ssl_cert_reqs=maybe",
            "ssl_cert_reqs cannot be used: only db, ssl_ca_certs",
        ),
        ("rediss://host/0?ssl_ca_certs=", "ssl_ca_certs cannot be used"),
        ("rediss://host/0?ssl_min_version=771", "ssl_min_version cannot be used"),
        ("redis://host/0?%20x", "this option cannot be used"),
        ("redis://user:w@rd@host/0", "%40"),
        ("redis://:w#rd@host/0", "%23"),
        ("redis://:w/rd@host/0", "%2F"),
        ("redis://:w?rd@host/0", "encode @"),
        ("redis://host?w=rd@host/0", "encode @"),
    ],
)
def test_an_invalid_url_of_a_server_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_redis_url(url)
    assert "rd@" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "rediss+sentinel"])
@pytest.mark.parametrize("password", [PASSWORD, "s3cr3t@w0rd", "s3cr3t#w0rd", "s3cr3t%w0rd", "#", "%2"])
def test_an_unencoded_password_is_refused_without_repeating_it(scheme: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"^encode @ / # % in the password, as %40 %2F %23 %25$"):
        check_redis_url(f"{scheme}://user:{password}@one:6379/docv")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cr3t%2Fw0rd%40%23%25@one:6379/0",
        "rediss://one/0?ssl_ca_certs=/etc/a@b.pem",
        "unix:///run/a@b/redis.sock?db=1",
        "unix://user:word@/run/redis.sock",
    ],
)
def test_an_encoded_password_and_an_at_sign_in_a_path_are_accepted(url: str) -> None:
    check_redis_url(url)


@pytest.mark.parametrize(
    ("options", "rewritten"),
    [
        ("ssl_cert_reqs=CERT_REQUIRED", "ssl_cert_reqs=required"),
        ("ssl_cert_reqs=CERT_NONE&db=3", "ssl_cert_reqs=none&db=3"),
        ("ssl_check_hostname=False", "ssl_check_hostname=false"),
        ("ssl_ca_certs=/etc/a%20b.pem", "ssl_ca_certs=/etc/a%20b.pem"),
    ],
)
def test_options_are_rewritten_for_redis_py_and_kombu(options: str, rewritten: str) -> None:
    assert check_redis_url(f"rediss://:w%40rd@host:6380/1?{options}") == f"rediss://:w%40rd@host:6380/1?{rewritten}"


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "unix:///run/redis.sock?db=2", "redis://[::1]:6379"])
def test_a_valid_url_is_unchanged(url: str) -> None:
    assert check_redis_url(url) == url
