"""One malicious or broken file, and how it comes to the platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Command = Literal["package", "restore", "trial"]


@dataclass(frozen=True)
class Case:
    """`write` makes the file in an empty folder and returns its path. A `mutated` file may still be a sound model."""

    name: str
    write: Callable[[Path], Path]
    command: Command = "package"
    mutated: bool = False
    #: further words of the command line; `{folder}` is the folder of the file
    words: tuple[str, ...] = ()


def content(name: str, raw: bytes, *, file: str, mutated: bool = False, words: tuple[str, ...] = ()) -> Case:
    """A case of one file with these bytes."""

    def write(folder: Path) -> Path:
        (folder / file).write_bytes(raw)
        return folder / file

    return Case(name, write, mutated=mutated, words=words)
