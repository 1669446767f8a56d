"""The stored result of the demo's year, which a second run reuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import UsageError
from cumulant.flows.demo.report import Year
from cumulant.outcomes.labels.atomic_files import write_bytes

_FILE = "demo-year.json"


class StoredYear(msgspec.Struct, frozen=True, kw_only=True):
    """The year of these versions, the first champion first."""

    versions: tuple[str, ...]
    year: Year


def is_kept(state: Path) -> bool:
    """Whether a year was told to its end."""
    return (state / _FILE).exists()


def stored_year(state: Path, versions: Sequence[str], make: Callable[[], Year]) -> Year:
    """The year of these versions as it is kept in the state folder, or else as `make` brings it about.

    Raises:
        UsageError: the year of other versions is kept there.
    """
    path = state / _FILE
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=StoredYear)
    except (OSError, msgspec.DecodeError):
        stored = None
    if stored is None:
        stored = StoredYear(versions=tuple(versions), year=make())
        write_bytes(path, msgspec.json.encode(stored))
    elif stored.versions != tuple(versions):
        raise UsageError(
            f"the demo's year was told with {', '.join(stored.versions)}, and now there are {', '.join(versions)}",
            subject=str(path),
            hint="name another folder with --dir, or remove this one",
        )
    return stored.year
