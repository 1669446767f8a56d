"""Paths into structs and JSON objects, as a source declares them: `columns: {city: address.city}`."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.core.errors import UsageError


def paths_of(columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Column to the names on its path. Raises UsageError for a path that names no field of a column."""
    paths = {name: tuple(path.split(".")) for name, path in columns.items()}
    for name, path in paths.items():
        if len(path) < 2 or not all(path):
            raise UsageError(
                f'columns: the path of {name}, "{columns[name]}", names no field of a column',
                subject=name,
                hint="write the column and its fields with points between: address.city",
            )
    return paths
