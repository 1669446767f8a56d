"""The embedded stores, by the door that every driver uses: they write and read a bucket's copies on this machine."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from cumulant.core.errors import TerminalError


def embedded(port: str, folder: Path) -> Any:
    """The embedded client of `port` in `folder`.

    Raises:
        TerminalError: the entry point `file` is missing: the installation is damaged.
    """
    for door in entry_points(group="cumulant.drivers", name="file"):
        module, _, name = door.load().clients[port].partition(":")
        return getattr(importlib.import_module(module), name)(f"file://{folder}")
    raise TerminalError("the embedded drivers are not registered", hint="install cumulant again")
