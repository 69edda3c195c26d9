import shlex

from scripts.simulator.rehearsal import rehearsal_commands, rehearsal_settings


def test_the_rate_is_at_most_the_rate_of_the_simulator() -> None:
    rates = [rehearsal_settings("http://127.0.0.1:1", "key", rate)["DOCV_RATE"] for rate in (None, 0, 5, 5_000)]
    assert rates == ["100", "100", "5", "100"]


def test_a_key_with_blanks_and_quotes_is_quoted_for_the_shell() -> None:
    commands = rehearsal_commands(rehearsal_settings("http://127.0.0.1:1", "it's a key", None))
    assert "DOCV_API_KEY=it's a key" in shlex.split(commands)


def test_rehearsal_commands_have_at_most_80_columns() -> None:
    commands = rehearsal_commands(rehearsal_settings("http://127.0.0.1:65535", "simulated-key", None), 100_000)
    assert max(map(len, commands.splitlines())) <= 80
