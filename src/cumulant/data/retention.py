"""Retention of snapshots: which expire, and which stored tables `clean` removes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cumulant.core.refs import TableRef
from cumulant.data.snapshot import RowRange, Snapshot, pack_name

if TYPE_CHECKING:
    from cumulant.ports.tables import TableStore


def expired_snapshots(snapshots: Iterable[Snapshot], keep: timedelta | None, now: datetime) -> list[Snapshot]:
    """Snapshots of one source older than `keep` (None: never), oldest first, without the newest accepted one."""
    ranked = sorted(snapshots, key=lambda snapshot: (not snapshot.breaches, snapshot.accepted))
    if keep is None or not ranked:
        return []
    oldest = now - keep
    return sorted((item for item in ranked[:-1] if item.accepted < oldest), key=lambda item: item.accepted)


def removable_keys(source: str, retained: Sequence[Snapshot], tables: TableStore) -> list[str]:
    """Keys of stored tables of `source` that neither retained snapshots nor their successors need, sorted."""
    folder = f"data/{source}/"
    needed = {ref.key for snapshot in retained for ref in _tables_of(snapshot)}
    parts = {name for snapshot in retained for name in _part_names(snapshot)}
    return sorted(
        key
        for key in tables.keys(folder)
        if key not in needed and key.removeprefix(folder).partition("/")[0] not in parts
    )


def needs(snapshot: Snapshot, keys: Collection[str]) -> bool:
    """Whether a snapshot or its successors need one of these stored tables of its source."""
    folder, parts = f"data/{snapshot.source}/", _part_names(snapshot)
    tables = {ref.key for ref in _tables_of(snapshot)}
    return any(key in tables or key.removeprefix(folder).partition("/")[0] in parts for key in keys)


def _part_names(snapshot: Snapshot) -> set[str]:
    return {*snapshot.part_names} or {pack_name(part) for file in snapshot.files for part in file.parts}


def _tables_of(snapshot: Snapshot) -> list[RowRange | TableRef]:
    others = [snapshot.quarantine, snapshot.versions, *(file.arrivals for file in snapshot.files)]
    return [*snapshot.parts, *snapshot.file_lists, *(ref for ref in others if ref is not None)]
