"""The files of the project that a Feast repository becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from cumulant.core.units import show_duration
from cumulant.project.feast.imported import ROWS, ImportedFeature, ImportedRepository, ImportedSource, ImportedView
from cumulant.project.file.layers import FILE
from cumulant.project.file.schema import SCHEMA_FILE, schema_text
from cumulant.project.new.create import yaml_text

FEATURES, PREPARE, GITIGNORE = "features.py", "prepare.py", ".gitignore"
_ROWS_FILE = "data/rows.parquet"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
#: the longest line of a list that is not written over several
_WIDTH = 110


class EntityRows(msgspec.Struct, frozen=True):
    """The rows that features are looked up for: their file (default: `data/rows.parquet`), times and target."""

    path: str = ""
    time: str = "event_timestamp"
    target: str = "label"


def project_files(imported: ImportedRepository, rows: EntityRows) -> dict[str, str]:
    """Names to contents."""
    prepared = any(_prepare_function(source) for source in imported.sources)
    prepare = {PREPARE: prepare_text(imported)} if prepared else {}
    return {
        FILE: project_text(imported, rows),
        FEATURES: features_text(imported),
        **prepare,
        SCHEMA_FILE: schema_text(),
        GITIGNORE: ".cumulant/\n",
    }


def project_text(imported: ImportedRepository, rows: EntityRows) -> str:
    """The project file. Times without an offset are UTC, as in Feast."""
    columns = ", ".join((*imported.keys, rows.time, rows.target))
    lines = [
        "# yaml-language-server: $schema=cumulant.schema.json",
        "version: 1",
        f"model: {{name: {yaml_text(imported.project)}}}",
        "data:",
        f"  {ROWS}:  # {_comment(f'what features are looked up for: {columns}')}",
        f"    path: {yaml_text(rows.path or _ROWS_FILE)}",
        f"    event_time: {{column: {_item(rows.time)}, zone: UTC}}",
    ]
    for source in imported.sources:
        lines += _source_lines(source)
    lines += [
        "training:",
        f"  source: {ROWS}",
        f"  target: {yaml_text(rows.target)}",
    ]
    return "\n".join([*lines, ""])


def _source_lines(source: ImportedSource) -> list[str]:
    lines = [
        f"  {source.name}:",
        f"    path: {yaml_text(source.path)}",
        *([f"    prepare: {PREPARE}:{function}"] if (function := _prepare_function(source)) else []),
        f"    key: {_items(source.key)}",
        "    on_repeat: latest",
        f"    event_time: {{column: {_item(source.event_time)}, zone: UTC}}",
    ]
    if source.created:
        lines.append(f"    known_time: {{{_item(source.created)}: {_items(source.known)}}}")
    if source.types:
        lines.append("    rules:")
        lines += [f"      {yaml_text(column)}: {{type: {kind}}}" for column, kind in source.types.items()]
    return lines


def prepare_text(imported: ImportedRepository) -> str:
    """The functions of the sources whose rows are not read as they are."""
    nested = any(source.nested for source in imported.sources)
    lines = [
        '"""What is done to rows before anything else reads them."""',
        "",
        "import polars as pl",
        *(["import polars.selectors as cs"] if nested else []),
    ]
    if nested:
        lines += [
            *("", "", "def without_lists(rows: pl.LazyFrame) -> pl.LazyFrame:"),
            '    """Leave out lists and structs, which no feature reads. Take parts of them here, as new columns."""',
            "    return rows.drop(cs.nested())",
        ]
    for source in imported.sources:
        if source.required:
            rows = "without_lists(rows)" if source.nested else "rows"
            lines += [
                *("", "", f"def {_prepare_function(source)}(rows: pl.LazyFrame) -> pl.LazyFrame:"),
                '    """Leave out rows that lack a key of these lookups. Where none does, `prepare` is not needed."""',
                f"    return {rows}.drop_nulls([{', '.join(_quoted(key) for key in source.required)}])",
            ]
    return "\n".join([*lines, ""])


def _prepare_function(source: ImportedSource) -> str:
    if source.required:
        return f"with_keys_of_{source.name.replace('-', '__')}"
    return "without_lists" if source.nested else ""


def _item(text: str) -> str:
    return yaml_text(text, plain=_PLAIN)


def _items(texts: Sequence[str]) -> str:
    return f"[{', '.join(_item(text) for text in texts)}]"


def features_text(imported: ImportedRepository) -> str:
    """The features file."""
    lines = [
        '"""Features that were imported from Feast. Public names below are features."""',
        "",
        "from cumulant.features import source",
    ]
    for view in imported.views:
        lines += ["", *_view_lines(view)]
    return "\n".join([*lines, ""])


def _view_lines(view: ImportedView) -> list[str]:
    by = [_quoted(key) for key in view.by]
    if view.within_seconds:
        by.append(f'within="{show_duration(timedelta(seconds=view.within_seconds))}"')
    if view.by_event_time:
        by.append('order="event_time"')
    read = dict.fromkeys(feature.column for feature in view.features)
    title = _comment(f"{view.name}: {view.description}" if view.description else view.name)
    call = f"{view.variable} = source({_quoted(view.source)}).as_of({', '.join(by)}).columns"
    if view.is_plain:
        return [f"# {title}", *_call(call, list(read), _described(view, view.features[0]))]
    return [f"# {title}", *_call(call, list(read)), *(_feature_line(view, feature) for feature in view.features)]


def _feature_line(view: ImportedView, feature: ImportedFeature) -> str:
    value = f"{view.variable}[{_quoted(feature.column)}]"
    return f"{feature.name} = {value}{_described(view, feature)}"


def _described(view: ImportedView, feature: ImportedFeature) -> str:
    """The call that gives a feature its description, owner and tags; empty without them."""
    if not (feature.description or view.owner or feature.tags):
        return ""
    details = [_quoted(feature.description)]
    details += [f"owner={_quoted(view.owner)}"] if view.owner else []
    details += [f"tags=[{', '.join(_quoted(tag) for tag in feature.tags)}]"] if feature.tags else []
    return f".described({', '.join(details)})"


def _call(start: str, columns: Sequence[str], end: str = "") -> list[str]:
    line = f"{start}({', '.join(_quoted(column) for column in columns)}){end}"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{start}(", *(f"    {_quoted(column)}," for column in columns), f"){end}"]


def _comment(text: str) -> str:
    """`text` on one line, so that nothing of a name ends the comment and is read as code."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
