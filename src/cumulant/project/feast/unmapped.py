"""Why a definition of Feast becomes nothing here, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import msgspec

from cumulant.core.units import show_duration
from cumulant.project.feast.imported import TYPES
from cumulant.project.feast.repository import (
    LONGEST_SECONDS,
    FeastAggregation,
    FeastField,
    FeastProjection,
    FeastSource,
    FeastView,
)

#: Feast's functions to those of windows
_WINDOWS = {
    **{name: name for name in ("sum", "mean", "min", "max", "count", "std")},
    "avg": "mean",
    "count_distinct": "distinct",
}
_SCHEMES = frozenset({"s3", "gs", "az"})


class Unmapped(msgspec.Struct, frozen=True):
    """The reason, and the next step of a person."""

    reason: str
    next: str = ""


def why_no_source(source: FeastSource, paths: Mapping[str, str]) -> Unmapped | None:
    """Why a source has no counterpart; None where it has. `paths`: files that the caller gives for sources, by name."""
    return next(_faults_of_source(source, given=source.name in paths), None)


def _faults_of_source(source: FeastSource, *, given: bool) -> Iterator[Unmapped]:
    export = f"export it as Parquet and add --source {source.name}=PATH"
    scheme, mark, _ = source.path.partition("://")
    if source.kind == "RequestSource":
        yield Unmapped("its fields are columns of the rows themselves", 'use them as col("NAME") in features.py')
    if not given and source.kind != "FileSource" and source.batch_source:
        yield Unmapped(f"a stream, whose history is {source.batch_source}")
    if not given and source.kind != "FileSource":
        table = f" ({source.table})" if source.table else ""
        yield Unmapped(f"a {source.kind}{table}; sources here are files or topics", export)
    if not given and source.format not in ("", "ParquetFormat"):
        yield Unmapped(f"its format is {source.format.removesuffix('Format')}", export)
    if not given and mark and scheme not in _SCHEMES:
        yield Unmapped(f"files at {scheme}:// are not read", export)
    if not source.timestamp_field:
        yield Unmapped("it has no timestamp_field", "declare it in Feast")


def why_no_view(
    view: FeastView,
    sources: Mapping[str, FeastSource],
    paths: Mapping[str, str],
    *,
    service: str,
    projection: FeastProjection | None,
) -> Unmapped | None:
    """Why a view has no counterpart; None where it has. `projection`: what a chosen `service` takes of it."""
    source = sources.get(view.source)
    refused = None if source is None else why_no_source(source, paths)
    return next(_faults_of_view(view, source, refused, service, projection), None)


def _faults_of_view(
    view: FeastView,
    source: FeastSource | None,
    refused: Unmapped | None,
    service: str,
    projection: FeastProjection | None,
) -> Iterator[Unmapped]:
    if service and projection is None:
        yield Unmapped(f"not in the feature service {service}")
    if projection is not None and projection.join_key_map:
        yield Unmapped(
            f"the service looks it up by {projection.keys_text}; here both sides have one name",
            "add a source of the same files whose prepare function renames the column",
        )
    if view.aggregations:
        lines = [line for part in view.aggregations if (line := window_line(view, part)) is not None]
        yield Unmapped(
            "its aggregations are computed by Feast in hops; windows here are exact",
            f"over the events: {'; '.join(lines)}" if lines else "write windows over the events",
        )
    if view.transformed or view.source_views:
        yield Unmapped(
            "its values are computed by a transformation",
            "write them as expressions in features.py, or import files of its results as a plain feature view",
        )
    yield from _faults_of_lookup(view)
    if not view.features:
        yield Unmapped(f"its features are unknown: {view.problem or 'no schema'}", "declare its schema in Feast")
    if source is None:
        yield Unmapped("it has no batch source", "give it one with the history of its rows")
    elif refused is not None:
        yield refused
    elif others := [key for key in view.join_keys if source.column(key) != key]:
        yield Unmapped(
            f'the join key {others[0]} is the column "{source.column(others[0])}" of {source.name}, and lookups '
            "need one name",
            "rename the column in the data, or in a prepare function",
        )


def _faults_of_lookup(view: FeastView) -> Iterator[Unmapped]:
    if view.ttl_seconds < 0:
        yield Unmapped(f"its ttl is negative: {view.ttl_seconds:g} s", "declare one of 0, which is no limit, or more")
    if not view.join_keys:
        yield Unmapped("it has no entity, and a lookup needs a key", "give its rows and yours a constant column")


def window_line(view: FeastView, part: FeastAggregation) -> str | None:
    """An aggregation as a window over the source of the events; None where no window computes it."""
    function = _WINDOWS.get(part.function)
    if function is None or not 0 < part.window_seconds < LONGEST_SECONDS or not view.join_keys:
        return None
    keys = ", ".join(f'"{key}"' for key in view.join_keys)
    return f'source("EVENTS").by({keys}).{function}("{part.column}", window="{span(part.window_seconds)}")'


def no_plain_values(fields: Sequence[FeastField]) -> str:
    """What fields without a counterpart hold."""
    kinds = ", ".join(f"{field.name} ({field.type})" for field in fields if field.type not in TYPES)
    return f"{kinds}: features are numbers, texts, booleans and times" if kinds else "no feature of it is chosen"


def span(seconds: float) -> str:
    return show_duration(timedelta(seconds=seconds))
