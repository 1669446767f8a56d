"""A feature plan as one streaming query of Flink SQL, and the tables that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cumulant.core.expr import columns as columns_of
from cumulant.core.plan import FeaturePlan, FeatureSpec, Source
from cumulant.features.definition.dtypes import Kind
from cumulant.features.definition.known_time import EntryRule
from cumulant.features.definition.stages import expression_stages
from cumulant.features.flink.expressions import convert, expression
from cumulant.features.flink.refusals import MILLISECOND_US, columns_read, require_compilable
from cumulant.features.flink.sql_text import COLUMN_TYPES, QuerySteps, canonical, interval, name, null, outward, text
from cumulant.features.flink.windows import ROWTIME, GroupStep
from cumulant.features.offline.groups import MeasureGroup, event_columns, groups_of

#: what the text is written for
SETTINGS = {"execution.runtime-mode": "streaming", "table.local-time-zone": "UTC"}
#: columns of the result with the key of a row begin with it
KEY = "__key "
_RAW = "raw "
#: times of JSON are in UTC, as 2026-03-01T12:00:00.5Z
JSON = {"format": "json", "json.timestamp-format.standard": "ISO-8601"}


class StreamTable(msgspec.Struct, frozen=True):
    """The stream of a source: how late rows come, and the options of Flink's connector to it."""

    lateness_us: int | None
    options: Mapping[str, str]


class FlinkQuery(msgspec.Struct, frozen=True):
    """`tables` are statements that create what the query reads, `text` selects the features of each row."""

    tables: tuple[str, ...]
    text: str
    settings: Mapping[str, str]


def compile_query(
    plan: FeaturePlan, streams: Mapping[str, StreamTable], *, functions: Mapping[str, str] | None = None
) -> FlinkQuery:
    """The features of every row of the entity source, as soon as all that counts at its prediction has come.

    Streams are of whole rows, of which the first of each key counts; a row that is later than the `lateness` of its
    source is in no window and gets no features. A time that is finer than a millisecond ends the job. The result has
    the key of each row, `__key NAME`, beside its features.

    Raises:
        DefinitionError: Flink SQL cannot compute the plan (`refusals`).
    """
    lateness = {of: stream.lateness_us for of, stream in streams.items()}
    require_compilable(plan, functions=functions, lateness=lateness)
    return _Query(plan, streams).compiled()


class _Query:
    def __init__(self, plan: FeaturePlan, streams: Mapping[str, StreamTable]) -> None:
        self._plan, self._streams, self._groups = plan, streams, groups_of(plan)
        self._entity = plan.sources[plan.entity]
        #: a table for each source and time of entry, which is its event time
        self._tables: dict[tuple[str, EntryRule | None], str] = {}
        self._created: list[str] = []

    def compiled(self) -> FlinkQuery:
        features = {spec.name: spec.dtype for spec in self._plan.features}
        raw = self._raw()
        carried: dict[str, Kind] = {_RAW + of: kind for of, kind in raw.items()}
        rows = self._table(self._entity, None, sorted(raw))
        shown = ", ".join(f"{name(of)} AS {name(_RAW + of)}" for of in raw)
        steps = [("rows", f"SELECT {shown}, {name(ROWTIME)}, `__entry` FROM {rows}")]
        before = "(SELECT * FROM `rows` WHERE `__entry` IS NOT NULL)"
        for group in self._groups:
            steps.append((f"group {group.number}", self._group(group, before, carried)))
            before = name(f"group {group.number}")
            carried |= {of: features[of] for of in group.measures}
        columns = ", ".join(map(name, carried))
        if self._groups:
            none = ", ".join(name(of) if of.startswith(_RAW) else null(kind) for of, kind in carried.items())
            never = f"SELECT {none} FROM `rows` WHERE `__entry` IS NULL"
            steps.append(("measured", f"SELECT {columns} FROM {before} UNION ALL {never}"))
        else:
            steps.append(("measured", f"SELECT {columns} FROM `rows`"))
        steps += self._stages(raw, features)
        keys = [f"{outward(name(_RAW + of), raw[of])} AS {name(KEY + of)}" for of in self._entity.key]
        results = [f"{outward(name(of), features[of])} AS {name(of)}" for of in self._plan.names]
        listed = ",\n".join(f"{name(of)} AS (\n  {query}\n)" for of, query in steps)
        select = f"SELECT {', '.join([*keys, *results])} FROM {name(steps[-1][0])}"
        return FlinkQuery(tuple(self._created), f"WITH {listed}\n{select}\n", SETTINGS)

    def _raw(self) -> dict[str, Kind]:
        """The columns of the entity's rows that are read, by kind."""
        read = set(self._entity.key)
        for spec in self._plan.features:
            measure = spec.window or spec.lookup
            read |= set(measure.by) if measure is not None else columns_of(spec.expr) if spec.expr else set()
        return {field.name: field.dtype for field in self._entity.fields if field.name in read}

    def _group(self, group: MeasureGroup, rows: str, carried: Mapping[str, Kind]) -> str:
        source = self._plan.sources[group.source]
        events = self._table(source, group.entry, sorted(event_columns(group, source)))
        return GroupStep(self._plan, group).text(events, rows, carried, [_RAW + of for of in group.by])

    def _stages(self, raw: Mapping[str, Kind], features: Mapping[str, Kind]) -> list[tuple[str, str]]:
        measured = [of for group in self._groups for of in group.measures]
        stages: list[tuple[str, str]] = []
        before = "measured"
        for number, stage in enumerate(expression_stages(self._plan.features, measured)):
            steps = QuerySteps()
            values = [f"{_value(spec, steps, raw, features)} AS {name(spec.name)}" for spec in stage]
            own = [*(_RAW + of for of in raw), *measured]
            columns = ", ".join([*map(name, own), *values])
            stages.append(
                (f"stage {number}", f"SELECT {columns} FROM ({steps.around(f'SELECT * FROM {name(before)}')})")
            )
            measured += [spec.name for spec in stage]
            before = f"stage {number}"
        return stages

    def _table(self, source: Source, entry: EntryRule | None, columns: Sequence[str]) -> str:
        """The first row of each key with `columns` in their inside types, `__event`, `__entry` and its event time."""
        if (source.name, entry) not in self._tables:
            self._tables[source.name, entry] = of = f"{source.name} {len(self._tables)}"
            self._created.append(self._statement(of, source, entry))
        table = name(self._tables[source.name, entry])
        kinds: dict[str, Kind] = {field.name: field.dtype for field in source.fields}
        steps = QuerySteps()
        values = [f"{canonical(steps.let, name(of), kinds[of])} AS {name(of)}" for of in columns]
        if self._groups:
            values += [f"{canonical(steps.let, name(source.event_time or ''), 'time')} AS `__event`"]
            values += [f"{self._entry(source, entry, steps)} AS `__entry`", name(ROWTIME)]
        else:
            values += [f"{null('time')} AS `__entry`", f"{null('time')} AS {name(ROWTIME)}"]
        return f"(SELECT {', '.join(values)} FROM ({steps.around(_first_rows(table, source.key))}))"

    def _entry(self, source: Source, entry: EntryRule | None, steps: QuerySteps | None) -> str:
        """When a row enters, or is predicted for; without `steps` for a table, which checks that times are no finer."""
        assert source.event_time is not None
        offset = self._plan.predict_at.offset_us if self._plan.predict_at else 0
        times = [(source.event_time, offset if entry is None else entry.delay_us), *(entry.columns if entry else ())]
        moments = []
        for column, delay in times:
            value = _checked(source.name, column) if steps is None else canonical(steps.let, name(column), "time")
            moments.append(f"({value} + CAST('{delay}' AS BIGINT))")
        return moments[0] if len(moments) == 1 else f"GREATEST({', '.join(moments)})"

    def _statement(self, of: str, source: Source, entry: EntryRule | None) -> str:
        stream = self._streams[source.name]
        kinds: dict[str, Kind] = {field.name: field.dtype for field in source.fields}
        read = columns_read(self._plan, source)
        columns = [f"{name(field)} {COLUMN_TYPES[kind]}" for field, kind in kinds.items() if field in read]
        if self._groups:
            offset = self._plan.predict_at.offset_us if self._plan.predict_at and entry is None else 0
            # a row is late where it is older than the watermark, and where it is as old
            behind = (stream.lateness_us or 0) + max(0, -offset) + MILLISECOND_US
            event = canonical(str, name(source.event_time or ""), "time")
            columns.append(f"{name(ROWTIME)} AS {_moment(f'COALESCE({self._entry(source, entry, None)}, 0)')}")
            columns.append(f"WATERMARK FOR {name(ROWTIME)} AS {_moment(event)} - {interval(_rounded_up(behind))}")
        options = ", ".join(f"{text(key)} = {text(value)}" for key, value in stream.options.items())
        listed = ",\n  ".join(columns)
        return f"CREATE TEMPORARY TABLE {name(of)} (\n  {listed}\n) WITH ({options})"


def _value(spec: FeatureSpec, steps: QuerySteps, raw: Mapping[str, Kind], features: Mapping[str, Kind]) -> str:
    assert spec.expr is not None
    value, kind = expression(spec.expr, steps.let, raw, features, column=lambda column: name(_RAW + column))
    return convert(value, kind, spec.dtype)


def _first_rows(table: str, key: Sequence[str]) -> str:
    """Of the rows of a key the first that came; those without a key, or with a null in it, are all different."""
    if not key:
        return f"SELECT * FROM {table}"
    keys, known = ", ".join(map(name, key)), " AND ".join(f"{name(of)} IS NOT NULL" for of in key)
    numbered = f"SELECT *, ROW_NUMBER() OVER (PARTITION BY {keys} ORDER BY PROCTIME() ASC) AS `__n` FROM {table}"
    unknown = f"SELECT *, CAST(1 AS BIGINT) AS `__n` FROM {table} WHERE NOT ({known})"
    return f"SELECT * FROM ({numbered} WHERE {known}) WHERE `__n` = 1 UNION ALL {unknown}"


def _checked(source: str, column: str) -> str:
    """A time in microseconds; one that is finer than a millisecond ends the job, with its name."""
    reason = text(f"a time of {source}.{column} is finer than a millisecond: ")
    error = f"CAST(CONCAT({reason}, CAST({name(column)} AS STRING)) AS BIGINT)"
    value = canonical(str, name(column), "time")
    return f"CASE WHEN MOD(EXTRACT(MICROSECOND FROM {name(column)}), 1000) = 0 THEN {value} ELSE {error} END"


def _moment(micros: str) -> str:
    return f"TO_TIMESTAMP_LTZ({micros} / 1000, 3)"


def _rounded_up(micros: int) -> int:
    return -(-micros // MILLISECOND_US) * MILLISECOND_US
