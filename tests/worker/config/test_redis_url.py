"""A Redis is named by itself, or by the Sentinels that watch it."""

import pytest

from worker.config.redis_url import SentinelUrl, check_redis_url, is_sentinel_url, parse_sentinel_url

PASSWORD = "s3cr3t/w0rd"


@pytest.mark.parametrize(
    "url", ["redis://host", "redis://:word@host:6379/3", "rediss://host:6380", "unix:///run/redis.sock?db=2"]
)
def test_a_redis_is_named_by_its_address(url: str) -> None:
    check_redis_url(url)
    assert not is_sentinel_url(url)


@pytest.mark.parametrize(
    ("url", "watched"),
    [
        ("redis+sentinel://one/docv", SentinelUrl((("one", 26379),), "docv")),
        (
            "redis+sentinel://archiver:s3cr3t%2Fw0rd@one:26379,two.example:26380,[::1]:1/my-redis.2/3",
            SentinelUrl((("one", 26379), ("two.example", 26380), ("::1", 1)), "my-redis.2", 3, "archiver", PASSWORD),
        ),
        ("redis+sentinel://:s3cr3t%2Fw0rd@one/docv/0", SentinelUrl((("one", 26379),), "docv", 0, None, PASSWORD)),
    ],
)
def test_a_redis_is_named_by_its_sentinels(url: str, watched: SentinelUrl) -> None:
    check_redis_url(url)
    assert is_sentinel_url(url)
    assert parse_sentinel_url(url) == watched
    assert PASSWORD not in repr(watched)


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
        f"redis+sentinel://user:{PASSWORD}@one/docv",
        "redis+sentinel://one;two/docv",
    ],
)
def test_what_names_no_sentinels_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected is redis\+sentinel://host:26379,host:26379/service/0$"):
        check_redis_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host", "expected is redis://host:6379/0"),
        ("rediss+sentinel://one/docv", r"redis\+sentinel://"),
        ("redis://host:port", "look at host and port"),
    ],
)
def test_what_names_no_redis_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_redis_url(url)
