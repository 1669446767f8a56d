"""A Feast repository's definitions as JSON: `python describe.py REPOSITORY FILE`.

Runs with an interpreter that has Feast and may not have Cumulant, so it imports nothing of this package. Exit codes:
93, there is no Feast; 94, the definitions cannot be read (FILE then has the reason). What it says of errors never
quotes feature_store.yaml, which may hold passwords.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

NO_FEAST, FAULTY = 93, 94  # which Python files that end the process are unlikely to use


def main() -> int:
    repository, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    for name in ("FEAST_USAGE", "FEAST_TELEMETRY"):
        os.environ[name] = "False"
    # This file's folder must not be where the definitions' imports are looked for.
    sys.path[:1] = [str(repository)]
    os.chdir(repository)
    try:
        operations = import_module("feast.repo_operations")
        text = json.dumps(described(operations.parse_repo(repository), repository))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the definitions are Python that may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "feast":
            return NO_FEAST
        out.write_text(_sentence(error), encoding="utf-8", errors="replace")
        return FAULTY
    out.write_text(text, encoding="utf-8")
    return 0


def described(contents: Any, repository: Path) -> dict[str, Any]:
    """The objects of a repository; of later versions also what has kinds that this module does not know."""
    entities = [entity for entity in contents.entities if entity.name != "__dummy"]
    keys = {entity.name: entity.join_key for entity in entities}
    views = [*contents.feature_views, *contents.stream_feature_views]
    problems = _infer([view for view in views if not _is_computed(view)], entities, repository)
    sources: dict[str, Any] = {}
    for source in [*contents.data_sources, *(part for view in views for part in _sources_of(view))]:
        sources.setdefault(source.name, source)
    known = {
        "data_sources",
        "entities",
        "feature_views",
        "stream_feature_views",
        "on_demand_feature_views",
        "feature_services",
        "projects",
    }
    return {
        "feast": version("feast"),
        "project": _project(contents, repository),
        "entities": [
            {"name": entity.name, "join_key": entity.join_key, "value_type": entity.value_type.name}
            for entity in entities
        ],
        "sources": [_source(source) for source in sources.values()],
        "views": [_view(view, keys, problems) for view in views],
        "on_demand": [_on_demand(view) for view in contents.on_demand_feature_views],
        "services": [_service(service) for service in contents.feature_services],
        "others": [
            {"kind": type(thing).__name__, "name": str(getattr(thing, "name", ""))}
            for part in getattr(contents, "_fields", ())
            if part not in known
            for thing in getattr(contents, part)
        ],
    }


def _project(contents: Any, repository: Path) -> str:
    """The name of the project, of its file or of its definitions."""
    projects = getattr(contents, "projects", [])
    if projects:
        return str(projects[0].name)
    yaml, file = import_module("yaml"), repository / "feature_store.yaml"
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return str(settings.get("project") or "") if isinstance(settings, Mapping) else ""


def _is_computed(view: Any) -> bool:
    """Whether the view's values are computed: its source then does not have its columns."""
    computing = ("udf", "feature_transformation", "aggregations", "source_views")
    return any(bool(getattr(view, name, None)) for name in computing)


def _infer(views: list[Any], entities: list[Any], repository: Path) -> dict[str, str]:
    """Fill in what Feast takes from the data when a repository is applied: the view's name to why that failed."""
    problems: dict[str, str] = {}
    lacking = [
        view for view in views if not view.features or (view.batch_source and not view.batch_source.timestamp_field)
    ]
    if not lacking:
        return problems
    inference = import_module("feast.inference")
    try:
        settings = import_module("feast.repo_config").load_repo_config(repository, repository / "feature_store.yaml")
        provider = import_module("feast.infra.provider").get_provider(settings)
    except Exception as error:  # noqa: BLE001 - a store's driver may not be installed, or not be reached
        return {view.name: f"feature_store.yaml: {_kind(error)}" for view in lacking}
    for view in lacking:
        try:
            inference.update_data_sources_with_inferred_event_timestamp_col([view.batch_source], settings)
            inference.update_feature_views_with_inferred_features_and_entities(provider, [view], entities, settings)
        except Exception as error:  # noqa: BLE001 - as above
            # Of a file the path is told; a store's driver may quote how it was connected to.
            in_file = type(view.batch_source).__name__ == "FileSource"
            problems[view.name] = _sentence(error) if in_file else _kind(error)
    return problems


def _sentence(error: BaseException) -> str:
    if next(_invalid_parts(error), None) is not None:
        return _kind(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _kind(error: BaseException) -> str:
    """An error without its text, which may quote settings: its class, and what is missing or invalid."""
    parts = [error.name] if isinstance(error, ImportError) and error.name else list(_invalid_parts(error))
    return f"{type(error).__name__}{': ' if parts else ''}{', '.join(parts)}"[:300]


def _invalid_parts(error: BaseException) -> Iterator[str]:
    """The places of an error of validation, or of one that it caused, with what is wrong there."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        if type(cause).__name__ == "ValidationError" and callable(errors := getattr(cause, "errors", None)):
            for part in errors():
                yield f"{'.'.join(str(name) for name in part['loc']) or 'it'} ({part['type']})"
        cause = cause.__cause__ or cause.__context__


def _sources_of(view: Any) -> Iterable[Any]:
    return (part for part in (view.batch_source, getattr(view, "stream_source", None)) if part is not None)


def _source(source: Any) -> dict[str, Any]:
    kind = type(source).__name__
    values = {
        "name": source.name,
        "kind": kind,
        "timestamp_field": source.timestamp_field or "",
        "created_timestamp_column": source.created_timestamp_column or "",
        "field_mapping": dict(source.field_mapping or {}),
        "batch_source": getattr(getattr(source, "batch_source", None), "name", ""),
        "table": str(getattr(source, "table", "") or getattr(source, "query", "") or "")[:200],
        "topic": "",
        "path": "",
        "format": "",
    }
    if kind == "FileSource":
        form = source.file_options.file_format
        values |= {"path": str(source.path), "format": "" if form is None else type(form).__name__}
    for options, name in (("kafka_options", "topic"), ("kinesis_options", "stream_name")):
        if hasattr(source, options):
            values["topic"] = str(getattr(getattr(source, options), name) or "")
    return values


def _view(view: Any, keys: Mapping[str, str], problems: Mapping[str, str]) -> dict[str, Any]:
    ttl = view.ttl
    return {
        "name": view.name,
        "kind": type(view).__name__,
        "join_keys": [keys.get(name, name) for name in view.entities if name != "__dummy"],
        "ttl_seconds": 0.0 if ttl is None else ttl.total_seconds(),
        "source": "" if view.batch_source is None else view.batch_source.name,
        "stream_source": getattr(getattr(view, "stream_source", None), "name", ""),
        "features": [_field(field) for field in view.features],
        "description": view.description or "",
        "owner": view.owner or "",
        "tags": _texts(view.tags),
        "aggregations": [
            {
                "column": part.column,
                "function": part.function,
                "window_seconds": 0.0 if part.time_window is None else part.time_window.total_seconds(),
            }
            for part in getattr(view, "aggregations", None) or ()
        ],
        "transformed": bool(getattr(view, "udf", None) or getattr(view, "feature_transformation", None)),
        "source_views": [part.name for part in getattr(view, "source_views", None) or ()],
        "problem": problems.get(view.name, ""),
    }


def _field(field: Any) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": str(field.dtype),
        "description": getattr(field, "description", "") or "",
        "tags": _texts(getattr(field, "tags", None)),
    }


def _on_demand(view: Any) -> dict[str, Any]:
    requests = getattr(view, "source_request_sources", {})
    return {
        "name": view.name,
        "features": [_field(field) for field in view.features],
        "views": [part.name for part in getattr(view, "source_feature_view_projections", {}).values()],
        "requests": sorted(requests),
    }


def _service(service: Any) -> dict[str, Any]:
    return {
        "name": service.name,
        "projections": [
            {
                "view": part.name,
                "features": [field.name for field in part.features],
                "join_key_map": dict(part.join_key_map or {}),
            }
            for part in service.feature_view_projections
        ],
    }


def _texts(tags: Mapping[Any, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (tags or {}).items()}


if __name__ == "__main__":
    sys.exit(main())
