"""How often the garbage collector of a command's process runs.

Commands that only read and render create no garbage cycles; looking for them took 15 to 50 ms.
"""

from __future__ import annotations

import gc
import io
from contextlib import suppress

#: the class below `io.IOBase`, which is an abstract one: checking each object's type against that takes 0.2 s
_File = io.IOBase.__bases__[0]
#: new objects until the collector runs
_NEW_OBJECTS = 50_000
_DEFAULT = gc.get_threshold()
#: how the actions are named whose commands show what is stored
_SHOWS = (".show", ".plan")


def collect_rarely() -> None:
    """While modules are imported, until the action of the command is known."""
    gc.set_threshold(_NEW_OBJECTS, *_DEFAULT[1:])


def collect_for(action: str | None) -> None:
    """As Python does by default, unless the command of this action shows what is stored."""
    if action is None or not action.endswith(_SHOWS):
        gc.set_threshold(*_DEFAULT)


def collect_no_more() -> None:
    """Stop garbage collection before the process ends; functions registered with `atexit` still run."""
    for candidate in gc.get_objects():
        if issubclass(type(candidate), _File):
            with suppress(OSError, ValueError):  # a full disk, a closed file
                candidate.flush()
    gc.freeze()
