"""The name of the operator, for what stays in the archive: receipts and cancelled runs."""

import getpass
import os

import click

_LONGEST = 500

by_option = click.option("--by", help="Who asks for it; by default the login name.")


def operator_name(by: str | None) -> str:
    """Return the name that an operator gives, or the login name, or the number of a user without one.

    Raises:
        click.BadParameter: the name is not one line of reasonable length.
    """
    try:
        name = by or getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return check_line(name, "--by")


def check_line(text: str, option: str) -> str:
    """Return the value of an option without blanks around it.

    Raises:
        click.BadParameter: it is not one line of reasonable length.
    """
    if not 1 <= len(text.strip()) <= _LONGEST or not text.isprintable():
        raise click.BadParameter(f"expected is one line of 1 to {_LONGEST} characters", param_hint=option)
    return text.strip()
