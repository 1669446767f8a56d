"""Compilation of definitions against the sources of a project into a feature plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from cumulant.core.errors import DefinitionError, NotKnownYetError, UsageError, did_you_mean, not_found
from cumulant.core.expr import Node
from cumulant.core.expr import columns as columns_of
from cumulant.core.expr import features as features_of
from cumulant.core.plan import (
    PLAN_FORMAT,
    Aggregation,
    DType,
    FeaturePlan,
    FeatureSpec,
    Field,
    Lookup,
    PredictAt,
    Source,
    Window,
    operator_set,
)
from cumulant.features.definition import known_time
from cumulant.features.definition.dtypes import NUMBERS, TIMES, Kind, describe_kind, resolve
from cumulant.features.definition.loading import Definition, Definitions

KEYS: frozenset[DType] = frozenset({"bool", "int", "str", "time", "date"})


def compile_plan(
    definitions: Definitions, sources: Mapping[str, Source], *, entity: str, predict_at: PredictAt | None
) -> FeaturePlan:
    """The plan for rows of the source `entity`, predicted at `predict_at` (default: the row's event time).

    It holds only the sources and fields that it reads, so that its hash changes only with what it computes.

    Raises:
        NotFoundError: a source does not exist.
        NotKnownYetError: an input of the row itself is not known at the prediction.
        DefinitionError: a column or feature does not exist, a type does not fit, features depend on each other in a
            circle, or a source without event time is used in a window or lookup.
    """
    if entity not in sources:
        raise not_found("source", entity, sources)
    compiler = _Compiler(sources, sources[entity], predict_at)
    specs = compiler.specs(definitions)
    used, request = compiler.used, _request(compiler)
    trimmed = {name: _trim_source(sources[name], used[name]) for name in sorted(used)}
    return FeaturePlan(
        entity=entity,
        predict_at=compiler.predict_at,
        sources=trimmed,
        features=specs,
        request=request,
        format=PLAN_FORMAT,
        operators=operator_set(specs, trimmed.values()),
    )


class _Compiler:
    def __init__(self, sources: Mapping[str, Source], entity: Source, predict_at: PredictAt | None) -> None:
        self._sources = sources
        self.entity = entity
        self._kinds = {name: _kinds(source) for name, source in sources.items()}
        self.predict_at = self._moment(predict_at)
        self._features: dict[str, Kind] = {}
        #: columns read, by source
        self.used: dict[str, set[str]] = {entity.name: set()}
        #: columns of the row itself that expressions and keys read
        self.inputs: set[str] = set()
        #: columns of a request by which its row can count in its own windows
        self.itself: set[str] = set()
        self.measured = False

    def _moment(self, predict_at: PredictAt | None) -> PredictAt | None:
        if predict_at is None:
            return None if self.entity.event_time is None else PredictAt(self.entity.event_time)
        if self._kinds[self.entity.name].get(predict_at.column) != "time":
            raise DefinitionError(
                f'predict_at: "{predict_at.column}" is no time column of {self.entity.name}',
                subject=predict_at.column,
                hint=did_you_mean(predict_at.column, self._kinds[self.entity.name]),
            )
        if predict_at.column != self.entity.event_time:
            known_time.require_known(self.entity, None, predict_at.column, place="predict_at")
        return predict_at

    def specs(self, definitions: Definitions) -> tuple[FeatureSpec, ...]:
        return tuple(self._spec(definition) for definition in _in_order(definitions.features))

    def _spec(self, definition: Definition) -> FeatureSpec:
        with _at(definition):
            expr, window = definition.expr, definition.window
            kind: Kind = "null"
            if definition.of is not None and definition.of not in self._sources:
                raise not_found("source", definition.of, self._sources)
            if definition.of is not None and definition.of != self.entity.name:
                raise DefinitionError(
                    f"columns of {definition.of} are not part of a row of {self.entity.name}",
                    hint=f'look them up: {definition.of}.as_of("key", within="3h").columns("{definition.name}")',
                )
            if definition.lookup is not None:
                kind = self._lookup(definition.lookup)
            elif window is not None:
                window, kind = self._window(window)
            elif expr is not None:
                expr, kind = self._expression(expr)
            dtype = _dtype(kind)
        self._features[definition.name] = dtype
        return FeatureSpec(
            name=definition.name,
            dtype=dtype,
            expr=expr,
            lookup=definition.lookup,
            window=window,
            description=definition.description,
            owner=definition.owner,
            tags=definition.tags,
        )

    def _expression(self, expr: Node) -> tuple[Node, Kind]:
        node, kind = resolve(expr, self._kinds[self.entity.name], self._features)
        self._own_inputs(columns_of(node))
        return node, kind

    def _own_inputs(self, columns: Iterable[str]) -> None:
        for column in sorted(columns):
            known_time.require_known(self.entity, self.predict_at, column, place="")
            self.used[self.entity.name].add(column)
            self.inputs.add(column)

    def _lookup(self, lookup: Lookup) -> Kind:
        self._keyed(lookup)
        kind = resolve_column(lookup.column, self._kinds[lookup.source], lookup.source)
        known_time.require_reachable(self._sources[lookup.source], lookup)
        return kind

    def _window(self, window: Window) -> tuple[Window, Kind]:
        self._keyed(window)
        if window.value is None:
            return window, "int"
        value, kind = resolve(window.value, self._kinds[window.source])
        self.used[window.source] |= columns_of(value)
        return msgspec.structs.replace(window, value=value), _aggregate_kind(window.agg, kind)

    def _keyed(self, measure: Window | Lookup) -> None:
        """Checks common to windows and lookups: the source has times, and the keys fit the row's."""
        if measure.source not in self._sources:
            raise not_found("source", measure.source, self._sources)
        source = self._sources[measure.source]
        if source.event_time is None:
            raise DefinitionError(
                f"{source.name} has no event time, so the order of its rows and predictions is unknown",
                hint=f"declare event_time under data: {source.name}:",
            )
        if self.predict_at is None:
            raise DefinitionError(
                f"{self.entity.name} has no prediction time, so windows and lookups have no end",
                hint=f"declare event_time under data: {self.entity.name}:, or training: predict_at",
            )
        for key in measure.by:
            there = resolve_column(key, self._kinds[source.name], source.name)
            own = resolve_column(key, self._kinds[self.entity.name], self.entity.name)
            _refuse_mismatch(key, source.name, there, self.entity.name, own)
        self._note(source, measure)

    def _note(self, source: Source, measure: Window | Lookup) -> None:
        """Record what the measure reads, of its source and of the row itself."""
        self._own_inputs(measure.by)
        used = self.used.setdefault(source.name, set())
        used |= {column for column in known_time.columns_read(measure) if column in self._kinds[source.name]}
        self.measured = True
        if known_time.may_count_itself(self.entity, self.predict_at, measure):
            self.itself |= known_time.columns_read(measure) | {*self.entity.key, *_present(self.entity.event_time)}


def _request(compiler: _Compiler) -> tuple[Field, ...]:
    """Raw fields of a request; those that only let the row count in its own windows are nullable."""
    needed = set(compiler.inputs)
    if compiler.measured and compiler.predict_at is not None:
        needed.add(compiler.predict_at.column)
        compiler.used[compiler.entity.name].add(compiler.predict_at.column)
    fields = []
    for field in compiler.entity.fields:
        if field.name in needed:
            fields.append(field)
        elif field.name in compiler.itself:
            fields.append(msgspec.structs.replace(field, nullable=True))
    return tuple(fields)


def _trim_source(source: Source, used: set[str]) -> Source:
    """`source` with what the plan reads of it: the columns used, its key and its times."""
    times = {known_at.column for column in used if (known_at := known_time.known_at(source, column)) is not None}
    columns = used | set(source.key) | {name for name in (source.event_time, *times) if name is not None}
    return Source(
        name=source.name,
        key=source.key,
        event_time=source.event_time,
        fields=tuple(field for field in source.fields if field.name in columns),
        known={name: at for name in sorted(columns) if (at := known_time.known_at(source, name)) is not None},
        corrections=source.corrections,
        subject=source.subject,
    )


def _present(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _kinds(source: Source) -> dict[str, Kind]:
    return {field.name: field.dtype for field in source.fields}


def resolve_column(name: str, kinds: Mapping[str, Kind], source: str) -> Kind:
    """The kind of a column. Raises DefinitionError with the nearest name where it does not exist."""
    if name in kinds:
        return kinds[name]
    hint = did_you_mean(name, kinds) or f"it has {', '.join(list(kinds)[:12])}"
    raise DefinitionError(f'{source} has no column "{name}"', subject=name, hint=hint)


def _refuse_mismatch(key: str, source: str, there: Kind, entity: str, own: Kind) -> None:
    if there != own:
        raise DefinitionError(
            f'"{key}" is {describe_kind(there)} in {source} and {describe_kind(own)} in {entity}, so they never match',
            subject=key,
            hint="give both one type in the source's prepare function",
        )
    if there not in KEYS:
        raise DefinitionError(
            f'"{key}" is {describe_kind(there)}, and keys must match exactly',
            subject=key,
            hint="make it a whole number or text in the source's prepare function",
        )


def _aggregate_kind(agg: Aggregation, kind: Kind) -> Kind:
    """The kind that an aggregation gives on values of `kind`."""
    if agg in {"count", "distinct"}:
        fits, gives = kind != "bytes", "int"
    elif agg == "last":
        fits, gives = kind not in {"bytes", "null"}, kind
    elif agg in {"min", "max"}:
        fits, gives = kind in (NUMBERS | TIMES) - {"null"}, "int" if kind == "bool" else kind
    else:
        whole = agg == "sum" and kind != "float"
        fits, gives = kind in NUMBERS - {"null"}, "int" if whole else "float"
    if not fits:
        hint = 'compare it first: mean(col("x") == "a") is the share of "a"' if kind == "str" else None
        raise DefinitionError(f"{agg} does not work on {describe_kind(kind)}", subject=agg, hint=hint)
    return gives  # type: ignore[return-value]


def _dtype(kind: Kind) -> DType:
    if kind == "null":
        raise DefinitionError("this is always null")
    return kind


@contextmanager
def _at(definition: Definition) -> Iterator[None]:
    """Errors inside name the user's line and the feature."""
    try:
        yield
    except UsageError as error:
        text = error.message.removeprefix(": ")
        kind = NotKnownYetError if isinstance(error, NotKnownYetError) else DefinitionError
        # a part has a name of ours, or one that is no feature's: the line says which it is
        what = "" if definition.name.startswith("_") else f"feature {definition.name}: "
        message = f"{definition.place}: {what}{text}"
        raise kind(message, subject=error.subject or definition.name, hint=error.hint) from error


def _in_order(definitions: tuple[Definition, ...]) -> list[Definition]:
    """Each feature after those it reads, otherwise in the order of the file."""
    by_name = {definition.name: definition for definition in definitions}
    done: dict[str, Definition] = {}
    open_: list[str] = []

    def visit(definition: Definition) -> None:
        if definition.name in done:
            return
        if definition.name in open_:
            circle = " -> ".join([*open_[open_.index(definition.name) :], definition.name])
            raise DefinitionError(f"features depend on each other: {circle}", subject=definition.name)
        open_.append(definition.name)
        for name in sorted(features_of(definition.expr)) if definition.expr is not None else ():
            if name in by_name:
                visit(by_name[name])
        open_.pop()
        done[definition.name] = definition

    for definition in definitions:
        visit(definition)
    return list(done.values())
