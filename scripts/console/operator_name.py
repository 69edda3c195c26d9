"""The name of the operator, for the access log, and for receipts and cancelled runs in the archive."""

import getpass
import os

import click

_LONGEST = 500

by_option = click.option("--by", help="Name of the person responsible [default: DOCV_ACTOR, or the login name].")


def operator_name(by: str | None) -> str:
    """Return the name that an operator gives, or the one of ``actor_name``.

    Raises:
        click.BadParameter: the name is not one line of reasonable length.
    """
    return check_line(by or actor_name(), "--by")


def actor_name() -> str:
    """Return ``DOCV_ACTOR``, cut to one line, or the login name, or the number of a user without one."""
    # Read here and not from the settings: the log names the operator even if a setting is wrong.
    given = os.environ.get("DOCV_ACTOR", "").strip()
    try:
        name = given or getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return "".join(letter for letter in name if letter.isprintable())[:_LONGEST] or f"uid {os.getuid()}"


def check_line(text: str, option: str) -> str:
    """Return the value of an option without blanks around it.

    Raises:
        click.BadParameter: it is not one line of reasonable length.
    """
    if not 1 <= len(text.strip()) <= _LONGEST or not text.isprintable():
        raise click.BadParameter(f"expected one line of 1 to {_LONGEST} characters", param_hint=option)
    return text.strip()
