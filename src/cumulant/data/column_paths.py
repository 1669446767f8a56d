"""Paths into structs and JSON objects, as a source declares them: `columns: {city: address.city}`."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.core.errors import UsageError


def paths_of(columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Column to the names on its path. Raises UsageError for an empty name, or a path that names no field."""
    paths = {name: tuple(path.split(".")) for name, path in columns.items()}
    if "" in columns:
        raise UsageError(
            f'columns: the column with the path "{columns[""]}" has no name',
            subject=columns[""],
            hint="write a name before the path: city: address.city",
        )
    for name, path in paths.items():
        if len(path) < 2 or not all(path):
            raise UsageError(
                f'columns: the path of {name}, "{columns[name]}", names no field of a column',
                subject=name,
                hint="write the column and its fields with points between: address.city",
            )
    return paths
