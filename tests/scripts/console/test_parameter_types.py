import click
import pytest

from scripts.console.parameter_types import DurationType, RateType, ShareType


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        (RateType(), "0.5", 0.5),
        (RateType(), "10000", 10_000),
        (DurationType(), "90s", 90),
        (DurationType(), "30m", 1_800),
        (DurationType(), "2h", 7_200),
        (DurationType(), "7d", 604_800),
        (ShareType(), "5%", 0.05),
        (ShareType(), "0.5%", 0.005),
        (ShareType(), "100%", 1),
    ],
)
def test_a_parameter_is_converted(kind: click.ParamType[float], text: str, number: float) -> None:
    assert kind.convert(text, None, None) == number


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((RateType(), text) for text in ("0", "-1", "10001", "nan", "inf", "fast")),
        *((DurationType(), text) for text in ("", "5", "s", "1.5h", "-1h", "2w", "²h", "soon")),
        *((ShareType(), text) for text in ("", "5", "%", "0%", "101%", "-5%", "1.2.3%", "five")),
    ],
)
def test_an_invalid_parameter_is_a_usage_error(kind: click.ParamType[float], text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)
