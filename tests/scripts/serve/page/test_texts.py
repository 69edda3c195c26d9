"""Times and names as the page writes them."""

import time

import pytest

from scripts.serve.page.texts import ago, both, breakable, describe_distance, exact


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "just now"),
        (59, "59 s ago"),
        (61, "1 min ago"),
        (7_300, "2 h ago"),
        (86_400, "1 day ago"),
        (172_900, "2 days ago"),
        (70 * 86_400, "2 months ago"),
        (800 * 86_400, "2 years ago"),
        (-300, "in 5 min"),
    ],
)
def test_describe_distance_uses_one_unit(seconds: float, text: str) -> None:
    assert describe_distance(seconds) == text


def test_ago_is_relative_and_has_the_exact_time_as_a_tooltip() -> None:
    assert exact("2026-11-23T04:00:00.000Z") == exact(1_795_406_400.0) == "2026-11-23 04:00:00 UTC"
    moment = time.time() - 7_300
    assert str(ago(moment)).endswith(f'title="{exact(moment)}">2 h ago</time>')
    assert f'<span class="dim">{exact(moment)}</span>' in both(moment)


@pytest.mark.parametrize("text", ["<b>", "", "2026-99-99"])
def test_ago_returns_a_text_unchanged_when_it_is_not_a_time(text: str) -> None:
    assert ago(text) == exact(text) == text
    assert "<b>" not in both(text)


def test_a_name_may_break_only_after_slashes_and_underscores() -> None:
    assert str(breakable("a/b_c-d.jpg")) == "a/<wbr>b_<wbr>c-d.jpg"
    assert str(breakable("<i>_\u202egpj")) == "&lt;i&gt;_<wbr>\\u202egpj"
