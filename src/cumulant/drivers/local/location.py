"""The location of an embedded store: `sqlite:///abs/journal.db`, `file://relative/folder`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

# A single letter before the colon is a drive of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(//)?")
# `sqlite:////abs` is how SQLAlchemy writes an absolute path.
_SLASHES = re.compile(r"^//+")


class StoreLocation(msgspec.Struct, frozen=True):
    """The path of a store's URL, and the options after its `?`."""

    path: Path
    options: dict[str, str] = {}


def locate(url: str) -> StoreLocation:
    """The location that `url` names.

    What follows `scheme://` (or `scheme:`) is a path as it stands, nothing is percent-decoded: with a leading slash
    it is absolute, otherwise relative to the working directory. `~` is the user's home. A plain path is taken too.
    """
    rest = _SLASHES.sub("/", _SCHEME.sub("", url, count=1))
    before, _, query = rest.rpartition("?")
    options = dict(parse_qsl(query)) if "=" in query and before else {}
    return StoreLocation(Path((before if options else rest) or ".").expanduser(), options)
