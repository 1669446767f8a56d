"""The mapping of a Feast repository's definitions to those of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cumulant.core.errors import UsageError, not_found
from cumulant.project.feast.imported import (
    ROWS,
    TYPES,
    Created,
    FeastOptions,
    ImportedFeature,
    ImportedObject,
    ImportedRepository,
    ImportedSource,
    ImportedView,
    Outcome,
)
from cumulant.project.feast.names import feature_name, project_name, public_name, source_names, unused
from cumulant.project.feast.repository import FeastProjection, FeastRepository, FeastSource, FeastView
from cumulant.project.feast.unmapped import Unmapped, no_plain_values, span, why_no_source, why_no_view

#: beginnings of types whose values are no plain ones
_NESTED = ("Array", "Map", "ScalarMap", "Set", "Struct")


def map_repository(repository: FeastRepository, options: FeastOptions) -> ImportedRepository:
    """What a repository becomes.

    Raises:
        NotFoundError: there is no such service or source.
    """
    return _Mapper(repository, options).result()


class _Mapper:
    def __init__(self, repository: FeastRepository, options: FeastOptions) -> None:
        self._repository, self._options = repository, options
        self._sources = {source.name: source for source in repository.sources}
        for name in options.paths:
            if name not in self._sources:
                raise not_found("source", name, self._sources)
        services = {service.name: service for service in repository.services}
        if options.service and options.service not in services:
            raise not_found("feature service", options.service, services)
        self._projections = services[options.service].by_view() if options.service else {}
        self._names = source_names(
            [name for name, source in self._sources.items() if why_no_source(source, options.paths) is None]
        )
        self._read: dict[tuple[str, frozenset[str]], str] = {}
        self._objects: list[ImportedObject] = []
        self._variables: set[str] = set()

    def result(self) -> ImportedRepository:
        taken: dict[str, list[str]] = {}
        views: list[tuple[FeastView, ImportedView]] = []
        features = [(view, self._features(view)) for view in self._repository.views]
        for _, columns in features:
            for name in columns or ():
                taken.setdefault(feature_name(name), []).append(name)
        self._variables.update(taken)
        for view, columns in features:
            if columns is not None:
                views.append((view, self._view(view, columns, taken)))
        read = self._read_sources(views)
        sources = tuple(source for own in read.values() for source in own)
        self._other_objects({view.name: imported for view, imported in views}, read)
        return ImportedRepository(
            project=project_name(self._repository.project),
            sources=sources,
            views=tuple(imported for _, imported in views),
            objects=tuple(self._objects),
            differences=tuple(difference_text(source, self._options.created) for source in sources),
        )

    def _features(self, view: FeastView) -> dict[str, str] | None:
        """The features of a view that can be imported, with their columns; None where it cannot."""
        parts = self._projections.get(view.name, [])
        projection = parts[0] if parts else None
        fault = self._why_not(view, projection)
        for part in parts[1:]:
            if (why := self._why_not(view, part)) is not None:
                self._add(view.kind, part.label, "not mapped", why.reason, why.next)
        names = projection.features if projection is not None else ()
        chosen = [field for field in view.features if not names or field.name in names]
        plain = [field for field in chosen if field.type in TYPES]
        if fault is None and not plain:
            fault = Unmapped(no_plain_values(chosen), "store plain values for it")
        if fault is not None:
            self._add(view.kind, view.name, "not mapped", fault.reason, fault.next)
            return None
        text = f"{len(plain)} {'feature' if len(plain) == 1 else 'features'} looked up by {', '.join(view.join_keys)}"
        if view.within_seconds:
            text += f", at most {span(view.within_seconds)} old"
        if len(plain) < len(chosen):
            self._add(
                view.kind, view.name, "partly", f"{text}; without {no_plain_values(chosen)}", "store plain values"
            )
        else:
            self._add(view.kind, view.name, "mapped", text)
        source = self._sources[view.source]
        return {field.name: source.column(field.name) for field in plain}

    def _why_not(self, view: FeastView, projection: FeastProjection | None) -> Unmapped | None:
        return why_no_view(
            view, self._sources, self._options.paths, service=self._options.service, projection=projection
        )

    def _view(self, view: FeastView, columns: dict[str, str], taken: Mapping[str, Sequence[str]]) -> ImportedView:
        source = self._sources[view.source]
        fields = {field.name: field for field in view.features}
        known = bool(self._times(source)[1]) and self._options.created == "known"
        features = []
        for name, column in columns.items():
            public = feature_name(name)
            if len(taken[public]) > 1:
                end = name if public_name(name) else public
                public = self._unused(public_name(f"{view.name}__{end}"))  # as with Feast's full_feature_names
            tags = {**view.tags, **fields[name].tags}
            text = fields[name].description or ("" if public_name(name) else name)
            features.append(ImportedFeature(public, column, text, tuple(f"{key}={tags[key]}" for key in sorted(tags))))
        imported = ImportedView(
            name=view.name,
            variable="",
            source=self._source_name(view),
            by=view.join_keys,
            features=tuple(features),
            within_seconds=view.within_seconds,
            by_event_time=known,
            owner=view.owner,
            description=view.description,
        )
        variable = public_name(view.name) or "view"
        return msgspec.structs.replace(
            imported, variable=self._unused(variable if imported.is_plain else f"_{variable}")
        )

    def _times(self, source: FeastSource) -> tuple[str, str]:
        """The columns of the event time and of the created timestamp, which is empty where it says nothing more."""
        time, created = source.column(source.timestamp_field), source.created_timestamp_column
        created = source.column(created) if created else ""
        return time, "" if created == time else created

    def _unused(self, name: str) -> str:
        unique = unused(name, self._variables)
        self._variables.add(unique)
        return unique

    def _source_name(self, view: FeastView) -> str:
        """The source that a view reads: one for each set of join keys, as a row may lack a key of other views."""
        read = (view.source, frozenset(view.join_keys))
        if read not in self._read:
            name = self._names[view.source]
            if any(other == view.source for other, _ in self._read):
                name = unused(name, (ROWS, *self._names.values(), *self._read.values()))
            self._read[read] = name
        return self._read[read]

    def _read_sources(self, views: Sequence[tuple[FeastView, ImportedView]]) -> dict[str, list[ImportedSource]]:
        """The sources that views read, by the names in Feast of what these are of."""
        result: dict[str, list[ImportedSource]] = {}
        for (name, _), imported_name in self._read.items():
            source, own = self._sources[name], [pair for pair in views if pair[1].source == imported_name]
            time, created = self._times(source)
            keys = own[0][0].join_keys
            fields = [field for view in self._repository.views if view.source == name for field in view.features]
            types = {source.column(field.name): TYPES[field.type] for field in fields if field.type in TYPES}
            read = dict.fromkeys(feature.column for _, imported in own for feature in imported.features)
            columns = tuple(column for column in read if column not in (*keys, time, created))
            imported_source = ImportedSource(
                name=imported_name,
                path=self._options.paths.get(name, source.path),
                key=(*keys, time),
                event_time=time,
                created=created,
                known=(created,) if self._options.created == "corrections" else (time, *columns),
                types={column: types[column] for column in columns if types[column] != "time"},
                nested=any(field.type.startswith(_NESTED) for field in fields),
                required=keys if sum(other == name for other, _ in self._read) > 1 else (),
            )
            result.setdefault(name, []).append(imported_source)
        return result

    def _other_objects(self, views: Mapping[str, ImportedView], read: Mapping[str, list[ImportedSource]]) -> None:
        keys = {key for view in views.values() for key in view.by}
        for entity in self._repository.entities:
            if entity.join_key in keys:
                self._add("Entity", entity.name, "mapped", f"the key {entity.join_key} of lookups")
            else:
                self._add("Entity", entity.name, "not mapped", "no imported view has it")
        for source in self._sources.values():
            self._source_object(source, read)
        for on_demand in self._repository.on_demand:
            names = ", ".join(field.name for field in on_demand.features)
            inputs = ", ".join((*on_demand.views, *on_demand.requests))
            advice = f"write {names} as expressions in features.py over {inputs}"
            reason = "Python that Feast runs at each request; features here are expressions"
            self._add("OnDemandFeatureView", on_demand.name, "not mapped", reason, advice)
        for service in self._repository.services:
            if service.name == self._options.service:
                lost = [part for part in service.projections if part.join_key_map or part.view not in views]
                outcome: Outcome = "partly" if lost else "mapped"
                text = "the features of this project"
                if lost:
                    text += f", without those of {', '.join(dict.fromkeys(part.label for part in lost))}"
                self._add("FeatureService", service.name, outcome, text)
            else:
                advice = f"import it into a folder of its own with --service {service.name}"
                self._add("FeatureService", service.name, "not mapped", "a project is of one model", advice)
        for other in self._repository.others:
            advice = "declare roles under `access` in cumulant.yaml" if other.kind == "Permission" else ""
            self._add(other.kind, other.name, "not mapped", "it has no counterpart", advice)

    def _source_object(self, source: FeastSource, read: Mapping[str, list[ImportedSource]]) -> None:
        own = read.get(source.name) or read.get(source.batch_source) or []
        names = " and ".join(each.name for each in own)
        fault = why_no_source(source, self._options.paths)
        if source.name in read:
            text = f"the source {names}" if len(own) == 1 else f"the sources {names}, each with its join keys"
            dropped = ["lists"] * own[0].nested + ["rows that lack one"] * (len(own) > 1)
            if dropped:
                text += (
                    f"; prepare.py leaves {' and '.join(dropped)} out, so that engines over raw events do not compute"
                )
                text += " its features"
            self._add(source.kind, source.name, "mapped", text)
        elif source.batch_source in read:
            text = f"its batch source is {names}; what is pushed is not"
            advice = "post new rows to the servers, as docs/how-to/events.md says"
            if source.topic:
                text = f"its batch source is {names}; the topic {source.topic} is not"
                advice = f"ingest it as a source with `stream: {source.topic}`, as docs/how-to/ingest-streams.md says"
            self._add(source.kind, source.name, "partly", text, advice)
        elif fault is not None:
            self._add(source.kind, source.name, "not mapped", fault.reason, fault.next)
        else:
            self._add(source.kind, source.name, "not mapped", "no imported view reads it")

    def _add(self, kind: str, name: str, outcome: Outcome, text: str, advice: str = "") -> None:
        self._objects.append(ImportedObject(kind, name, outcome, text, advice))


def difference_text(source: ImportedSource, created: Created) -> str:
    """How values of a source may differ from Feast's."""
    if not source.created:
        return f"{source.name}: of rows with one key and time the last of the files counts; Feast takes any of them"
    if created == "known":
        return (
            f"{source.name}: a row counts from {source.created} on, where Feast by default reads it before. If "
            f"{source.created} is the time of a later load, import with --created corrections"
        )
    return (
        f"{source.name}: of rows with one key and time the later {source.created} counts from then on, where Feast "
        "reads it before; a row without such a correction counts from its event time, as in Feast, known or not"
    )


def parse_paths(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=PATH` of the command line. Raises UsageError."""
    pairs = [text.partition("=") for text in texts]
    for name, mark, path in pairs:
        if not name or not mark or not path:
            raise UsageError(
                f'--source takes NAME=PATH, not "{name}{mark}{path}"',
                subject=name or None,
                hint="--source accounts=data/accounts.parquet",
            )
    return {name: path for name, _, path in pairs}
