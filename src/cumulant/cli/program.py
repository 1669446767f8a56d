"""How a printed command begins: always with `cumulant`, whatever path the program was called by."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "cumulant"


def program(name: str) -> str:
    """Another program of this installation: `name` if the shell finds it, else the path of its script."""
    called = Path((sys.argv or [""])[0] or "notebook")
    script = called.with_name(name + called.suffix)
    if called.stem != NAME or not script.is_file():
        return name
    path = shutil.which(name)
    if path is not None and script.samefile(path):
        return name
    return shlex.quote(_short(script))


def line(command: str, *, project: str | None = None, environment: str | None = None) -> str:
    """A command line of this program: `line("train --quick")`, of a project elsewhere or of an environment."""
    options = f" --project {shlex.quote(project)}" if project else ""
    return f"{NAME} {command}{options}" + (f" --env {environment}" if environment else "")


def line_in(folder: str, command: str) -> str:
    """A command line about the project in `folder`, for a shell that is here."""
    return f"cd {shlex.quote(folder)} && {NAME} {command}"


def _short(path: Path) -> str:
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - not resolved: a link to the script is what was called
    try:
        below = whole.relative_to(Path.cwd())
    except ValueError:
        return str(whole)
    return str(below) if below.parent != Path() else os.path.join(".", below)  # noqa: PTH118 - Path drops the dot
