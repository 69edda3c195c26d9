import re

import pytest

from scripts.simulator.options import RateHeaderStyle, SimulatorOptions


def test_changed_replaces_only_the_given_options() -> None:
    options = SimulatorOptions(api_key="secret", port=8080).changed(
        {"rate": 5, "header_style": "x", "refuse_with": 403}
    )
    assert options == SimulatorOptions(
        api_key="secret", port=8080, rate=5, header_style=RateHeaderStyle.X, refuse_with=403
    )
    assert options.changed({"rate": None}).rate is None


@pytest.mark.parametrize("name", ["host", "port", "api_key", "image_bytes", "neighbour", "no_such_option"])
def test_changed_raises_value_error_when_an_option_is_fixed_or_unknown(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be changed: {name}"):
        SimulatorOptions().changed({name: 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": -1},
        {"rate": "many"},
        {"quota": 1.5},
        {"latency_ms": float("inf")},
        {"header_style": "loud"},
        {"refuse_with": 200},
    ],
)
def test_changed_names_the_option_when_a_value_is_invalid(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=re.escape(next(iter(changes)))):
        SimulatorOptions().changed(changes)


def test_options_do_not_show_the_key() -> None:
    assert "secret" not in repr(SimulatorOptions(api_key="secret"))
    with pytest.raises(ValueError, match="rate") as refused:
        SimulatorOptions(api_key="secret").changed({"rate": -1})
    assert "secret" not in str(refused.value)
