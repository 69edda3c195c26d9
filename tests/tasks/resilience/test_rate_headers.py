"""Rate limit headers in every known form."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.resilience.rate_headers import RateLimitHeaders, RateLimitWindow, parse_rate_limit_headers

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC).timestamp()


def wait_after_429(headers: dict[str, str]) -> float | None:
    """Return the seconds to wait after a 429 with these headers, or None if they have no wait."""
    return parse_rate_limit_headers(headers, NOW).wait


def windows(headers: dict[str, str]) -> tuple[RateLimitWindow, ...]:
    return parse_rate_limit_headers(headers, NOW).windows


@pytest.mark.parametrize("prefix", ["", "X-", "x-"])
def test_limit_remaining_and_reset_are_parsed(prefix: str) -> None:
    headers = {f"{prefix}RateLimit-Limit": "50", f"{prefix}RateLimit-Remaining": "7", f"{prefix}RateLimit-Reset": "1"}
    assert windows(headers) == (RateLimitWindow(1.0, limit=50, remaining=7, reset=1.0),)


@pytest.mark.parametrize("left_today", [999, 998])
def test_the_recorded_headers_of_riskos_are_parsed(left_today: int) -> None:
    parsed = parse_rate_limit_headers(
        {
            "X-Ratelimit-Limit-Window": "10",
            "X-Ratelimit-Remaining-Window": "9",
            "X-Ratelimit-Limit-Day": "1000",
            "X-Ratelimit-Remaining-Day": str(left_today),
            "X-Request-Id": "f9f8b8a1-6ee4-4a5b-8f0f-2a1f7f1f3a10",
        },
        NOW,
    )
    assert parsed.rate == RateLimitWindow(1.0, limit=10, remaining=9)
    assert parsed.day == RateLimitWindow(86_400.0, limit=1000, remaining=left_today)
    assert (parsed.wait, parsed.is_blocked) == (None, False)


@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
@pytest.mark.parametrize("prefix", ["", "X-"])
@pytest.mark.parametrize(
    ("suffix", "seconds"),
    [("", 1), ("-Window", 1), ("-Second", 1), ("-Minute", 60), ("-Hour", 3600), ("-Day", 86_400)],
)
def test_the_suffix_gives_the_length_of_a_window(
    spell: Callable[[str], str], prefix: str, suffix: str, seconds: float
) -> None:
    headers = {
        spell(f"{prefix}RateLimit-Limit{suffix}"): "10",
        spell(f"{prefix}RateLimit-Remaining{suffix}"): "0",
    }
    assert windows(headers) == (RateLimitWindow(seconds, limit=10, remaining=0),)


@pytest.mark.parametrize("suffix", ["", "-Window"])
@pytest.mark.parametrize(("reset", "seconds"), [("0", 1), ("1", 1), ("1.5", 1), ("2", None), ("40000", None)])
def test_an_unnamed_window_is_a_second_unless_its_reset_is_later(
    suffix: str, reset: str, seconds: float | None
) -> None:
    assert windows({f"X-RateLimit-Limit{suffix}": "10", f"X-RateLimit-Reset{suffix}": reset}) == (
        RateLimitWindow(seconds, limit=10, reset=float(reset)),
    )


def test_rate_is_the_window_with_the_lowest_rate() -> None:
    headers = {"RateLimit-Limit-Second": "10", "RateLimit-Limit-Minute": "300", "RateLimit-Limit-Day": "10"}
    assert parse_rate_limit_headers(headers, NOW).rate == RateLimitWindow(60.0, limit=300)


@pytest.mark.parametrize("suffix", ["", "-Window", "-Second", "-Day"])
def test_is_blocked_is_true_when_a_limit_is_0(suffix: str) -> None:
    parsed = parse_rate_limit_headers({f"X-Ratelimit-Limit{suffix}": "0"}, NOW)
    assert parsed.is_blocked
    assert parsed.rate is None


def test_wait_is_the_longest_reset_of_the_spent_windows() -> None:
    second = {"RateLimit-Remaining-Second": "0", "RateLimit-Reset-Second": "1"}
    day = {"RateLimit-Remaining-Day": "5", "RateLimit-Reset-Day": "40000"}
    assert wait_after_429(second | day) == 1
    assert wait_after_429(second | day | {"RateLimit-Remaining-Day": "0"}) == 40_000


def test_headers_without_rate_limits_give_no_windows() -> None:
    assert parse_rate_limit_headers({"Content-Type": "application/zip"}, NOW) == RateLimitHeaders()


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("10", 10),
        ("0", 0),
        ("10, 10;w=1", 10),
        ("10;w=60", 10),
        ("", None),
        ("many", None),
        ("-1", None),
        ("9" * 10, None),
    ],
)
def test_a_limit_may_be_followed_by_its_window(value: str, limit: int | None) -> None:
    assert [each.limit for each in windows({"RateLimit-Limit": value})] == ([] if limit is None else [limit])


def date(seconds: float, zone: timezone = UTC) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds, zone), usegmt=zone is UTC)


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "X-Retry-After", "X-RATELIMIT-RESET"])
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("17", 17),
        (" 17 ", 17),
        ("1.5", 1.5),
        ("0", 0),
        ("86401", 86_400),
        ("999999999", 86_400),
        (str(round(NOW) + 60), 60),
        (str(round(NOW) - 60), 0),
        (date(90), 90),
        (date(90, timezone(timedelta(hours=9))), 90),
        (date(-90), 0),
        (date(10 * 86_400), 86_400),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("0x10", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("1,2", None),
    ],
)
def test_a_wait_is_parsed_in_every_form(name: str, value: str, wait: float | None) -> None:
    assert wait_after_429({name: value}) == (None if wait is None else pytest.approx(wait))


def test_a_date_without_a_zone_is_in_utc_in_any_local_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 9110, 5.6.7: every HTTP date is in GMT. The form of asctime, which has no zone, has to be accepted.
    asctime = "Sat Jan 31 12:00:30 2026"
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert wait_after_429({"Retry-After": asctime}) == 30
        assert wait_after_429({"Retry-After": "Sat, 31 Jan 2026 12:00:30"}) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_first_valid_spelling_of_a_wait_counts() -> None:
    headers = {"X-RateLimit-Reset": "3", "X-Retry-After": "2", "Retry-After": "1"}
    assert wait_after_429(headers) == 1
    assert wait_after_429(headers | {"Retry-After": "soon"}) == 2
    assert wait_after_429(headers | {"Retry-After": "", "X-Retry-After": "-1"}) == 3
    assert wait_after_429({"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "0"}) is None
    assert wait_after_429({}) is None


dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon", "Sunday", ""]),
    st.integers(),
    st.sampled_from(["Jan", "Feb", "Nix"]),
    st.integers(),
    st.integers(),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(["GMT", "+0000", "-9999", "+99999999999999999999", ""]),
)


@given(st.one_of(st.text(), dates, st.integers().map(str), st.floats().map(str)), st.sampled_from([0.0, NOW, 1e11]))
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", NOW)
@example("Mon, 01 Jan 2030 00:00:00 +99999999999999999999", NOW)
@example("Fri, 31 Dec 9999 23:59:59", NOW)
def test_a_wait_is_between_0_and_a_day_for_any_header(value: str, now: float) -> None:
    wait = parse_rate_limit_headers({"Retry-After": value}, now).wait
    assert wait is None or 0 <= wait <= 86_400
