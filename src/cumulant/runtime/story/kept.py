"""What the demo's releases came to, kept so that the demo run again finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cumulant.runtime.story.told import Told

_FILE = "demo-releases.json"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Releases of these versions, the first champion first."""

    versions: tuple[str, ...]
    releases: tuple[Told, ...]


def kept_or(state: Path, versions: Sequence[str], make: Callable[[], tuple[Told, ...]]) -> tuple[Told, ...]:
    """The releases of these versions as they are kept in the state folder, or else as `make` brings them about."""
    path = state / _FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.DecodeError):
        found = None
    if found is None or found.versions != tuple(versions):
        found = Kept(versions=tuple(versions), releases=make())
        path.write_bytes(msgspec.json.encode(found))
    return found.releases
