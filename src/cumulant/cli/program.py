"""How a printed command begins: as this program was called, so that a reader can copy the line and it runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

NAME = "cumulant"


def program(name: str = NAME) -> str:
    """`name` where the shell finds this installation's script under it, else the path to that script.

    The path is short: from here where the script is below this folder (`.venv/bin/cumulant`), else whole. A program
    that was not started by its script (`python -m`, a notebook, a test) says plain `name`.
    """
    called = Path((sys.argv or [""])[0] or "notebook")
    script = called.with_name(name + called.suffix)
    if called.stem != NAME or not script.is_file():
        return name
    found = shutil.which(name)
    if found is not None and script.samefile(found):
        return name
    return shlex.quote(_short(script))


def line(words: str, *, project: str | None = None) -> str:
    """A command line of this program: `line("train --quick")`, about the project in a folder that is not here."""
    return f"{program()} {words}" + (f" --project {shlex.quote(project)}" if project else "")


def line_in(folder: str, words: str) -> str:
    """A command line about the project in `folder`, for a reader who stands here."""
    # After `cd` a path to the script would lead elsewhere.
    return f"cd {shlex.quote(folder)} && {NAME} {words}" if program() == NAME else line(words, project=folder)


def as_called(text: str) -> str:
    """`text` from another room, with every command of this program in it as `line` writes it."""
    own = program()
    return text if own == NAME else _mention().sub(lambda _: own, text)


def _mention() -> re.Pattern[str]:
    from cumulant.cli.app import COMMANDS

    return re.compile(rf"(?<![\w./-]){NAME}(?= (?:{'|'.join(COMMANDS)}|--\w+)\b)")


def _short(path: Path) -> str:
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - not resolved: a link to the script is what was called
    try:
        below = whole.relative_to(Path.cwd())
    except ValueError:
        return str(whole)
    return str(below) if below.parent != Path() else os.path.join(".", below)  # noqa: PTH118 - Path drops the dot
