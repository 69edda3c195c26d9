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
def test_a_distance_has_one_unit(seconds: float, text: str) -> None:
    assert describe_distance(seconds) == text


def test_a_time_is_relative_with_the_exact_one_as_its_tooltip() -> None:
    assert exact("2026-11-23T04:00:00.000Z") == exact(1_795_406_400.0) == "2026-11-23 04:00:00 UTC"
    moment = time.time() - 7_300
    assert str(ago(moment)).endswith(f'title="{exact(moment)}">2 h ago</time>')
    assert f'<span class="dim">{exact(moment)}</span>' in both(moment)


@pytest.mark.parametrize("text", ["<b>", "", "2026-99-99"])
def test_a_text_that_is_not_a_time_stays_text(text: str) -> None:
    assert ago(text) == exact(text) == text
    assert "<b>" not in both(text)


def test_a_name_may_be_broken_after_slashes_and_underscores_only() -> None:
    assert str(breakable("a/b_c-d.jpg")) == "a/<wbr>b_<wbr>c-d.jpg"
    assert str(breakable("<i>_\u202egpj")) == "&lt;i&gt;_<wbr>\\u202egpj"
