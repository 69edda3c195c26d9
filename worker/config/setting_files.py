"""Find problems in the files with settings before they are read."""

import codecs
import difflib
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

_RUN_SECRETS = Path("/run/secrets")
_PREFIX = "docv_"


def secret_folders() -> list[Path]:
    """Return the folders with a file for each secret; a later folder overrides an earlier one.

    systemd names the folder of ``LoadCredential=`` in ``CREDENTIALS_DIRECTORY`` (systemd.exec(5)).
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    folders = [_RUN_SECRETS, *([Path(credentials)] if credentials else [])]
    return [folder for folder in folders if folder.is_dir()]


def find_file_problems(dotenv: Path, known: AbstractSet[str]) -> Iterator[str]:
    """Yield a sentence for each file that cannot be read, or whose name is not that of a setting.

    Args:
        dotenv: the file with variables, which need not exist.
        known: names of the settings as environment variables.
    """
    # A folder of this name may be a virtual environment, and a pipe can be read only once.
    if dotenv.is_file() or (dotenv.is_symlink() and not dotenv.exists()):
        yield from _find_text_problems(dotenv)
    for folder in secret_folders():
        try:
            files = sorted(file for file in folder.iterdir() if file.name.lower().startswith(_PREFIX))
        except OSError as error:
            yield f"{folder} cannot be read: {error.strerror}"
            continue
        for file in files:
            yield from _find_secret_problems(file, known)


def _find_secret_problems(file: Path, known: AbstractSet[str]) -> Iterator[str]:
    if file.name.upper() not in known:
        yield f"{file} is not a setting of this version{suggest_name(file.name.upper(), known)}"
    elif file.is_dir():
        yield f"{file} is a folder: Docker makes one if the file to mount is missing; put the secret into a file"
    elif file.exists() and file.parent.resolve() not in file.resolve().parents:
        yield f"{file} is a link that leads out of {file.parent}: put the file itself there"
    else:
        yield from _find_text_problems(file)


def suggest_name(name: str, known: AbstractSet[str]) -> str:
    """Return a question that suggests a similar name, or an empty string if no name is similar."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _find_text_problems(file: Path) -> Iterator[str]:
    try:
        data = file.read_bytes()
        if b"\0" in data or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            yield f"{file} is text in UTF-16: save it as UTF-8"
        else:
            data.decode()
    except UnicodeDecodeError:
        yield f"{file} is not text in UTF-8: save it as UTF-8"
    except OSError as error:
        yield f"{file} cannot be read: {error.strerror}; fix its owner and mode, or the link"
