"""A feature plan as one query of Spark SQL, for rows of the history or rows beside it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.definition.dtypes import Kind
from cumulant.features.definition.stages import expression_stages
from cumulant.features.offline.groups import groups_of
from cumulant.features.spark.expressions import convert, expression
from cumulant.features.spark.sql_text import canonical, name, outward
from cumulant.features.spark.windows import IDENTITY, GroupQuery, has_versions, needs_identity

#: what the text of queries is written for
SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.variable.substitute": "false",
}
#: the view with the rows of `rows=True`
ROWS = "rows_to_predict"
Step = tuple[str, str]


class QueryView(msgspec.Struct, frozen=True):
    """A view that a query reads: its columns, and which of them are no fields of the source."""

    view: str
    columns: tuple[str, ...]


class SparkQuery(msgspec.Struct, frozen=True):
    """Text for a session in ANSI mode with the time zone UTC, and the views that it reads."""

    text: str
    inputs: tuple[QueryView, ...]


def compile_query(plan: FeaturePlan, *, rows: bool = False) -> SparkQuery:
    """The features of every row of the entity source at its prediction; with `rows` of the view `rows_to_predict`,
    whose rows are beside the history: it has the plan's request fields. Where rows of the entity source correct each
    other, the rows to predict are in that view in any case, with the source's fields (`offline.versions.as_predicted`).

    Each source is a view of its name with the plan's fields, in the types of the plan: times are TIMESTAMP, whole
    numbers BIGINT. Further columns: `__row` numbers the rows that are asked for;
    `__identity` is the identity of a row whose key is not one whole number, where its order matters; `__from` and
    `__until` are when a version of a row is in force, in microseconds, null for always.
    """
    for spec in plan.features:
        if (measure := spec.window or spec.lookup) is not None and measure.order is not msgspec.UNSET:
            raise DefinitionError(f'{spec.name}: Spark SQL has no order="event_time"', subject=spec.name)
    work = _Query(plan, rows=rows)
    steps = [*work.views(), *work.measured(), *work.stages()]
    known = {spec.name: spec.dtype for spec in plan.features}
    results = [f"{outward(name(of), known[of])} AS {name(of)}" for of in plan.names]
    with_steps = ",\n".join(f"{name(of)} AS (\n  {text}\n)" for of, text in steps)
    text = f"WITH {with_steps}\nSELECT {', '.join([name(ROW), *results])}\nFROM {name(steps[-1][0])}\n"
    return SparkQuery(text, work.inputs())


class _Query:
    """The steps of a query, each with its name."""

    def __init__(self, plan: FeaturePlan, *, rows: bool) -> None:
        self._plan, self._rows, self._groups = plan, rows, groups_of(plan)
        #: whether the rows that are asked for have a view of their own
        self._apart = rows or has_versions(plan.sources[plan.entity])
        self._asked: Sequence[Field] = plan.request if rows else plan.sources[plan.entity].fields
        self._read = sorted({group.source for group in self._groups})

    def views(self) -> list[Step]:
        """The sources that windows read, and the rows that are asked for."""
        plan = self._plan
        sources = [(f"source:{of}", _view(plan.sources[of].fields, of, self._extra(of))) for of in self._read]
        view, extra = self._queries_view()
        queries = _view(self._asked, view, extra)
        if plan.predict_at is not None:
            moment = f"{name(plan.predict_at.column)} + {plan.predict_at.offset_us}L"
            queries = f"SELECT *, {moment} AS `__moment` FROM ({queries})"
        return [*sources, ("queries", queries)]

    def measured(self) -> list[Step]:
        """The windows and lookups of each group, and those of all beside the row's own columns."""
        groups = [(f"group {of.number}", GroupQuery(self._plan, of, apart=self._rows).text()) for of in self._groups]
        raw = [f"q.{name(field.name)} AS {name(f'raw {field.name}')}" for field in self._asked]
        measures = [f"g{of.number}.{name(measure)}" for of in self._groups for measure in of.measures]
        joins = [
            f"LEFT JOIN {name(of)} g{number} ON g{number}.{name(ROW)} = q.{name(ROW)}"
            for number, (of, _) in enumerate(groups)
        ]
        selected = ", ".join([f"q.{name(ROW)}", *raw, *measures])
        return [*groups, ("measured", f"SELECT {selected} FROM queries q {' '.join(joins)}")]

    def stages(self) -> list[Step]:
        """The expressions."""
        kinds: dict[str, Kind] = {field.name: field.dtype for field in self._asked}
        known: dict[str, Kind] = {spec.name: spec.dtype for spec in self._plan.features}
        measured = [measure for of in self._groups for measure in of.measures]
        steps: list[Step] = []
        before = "measured"
        for number, stage in enumerate(expression_stages(self._plan.features, measured)):
            columns = [f"{_value(spec, kinds, known)} AS {name(spec.name)}" for spec in stage]
            steps.append((f"stage {number}", f"SELECT *, {', '.join(columns)} FROM {name(before)}"))
            before = f"stage {number}"
        return steps

    def inputs(self) -> tuple[QueryView, ...]:
        sources = self._read if self._apart else sorted({*self._read, self._plan.entity})
        inputs = [
            QueryView(of, (*(field.name for field in self._plan.sources[of].fields), *self._extra(of)))
            for of in sources
        ]
        if self._apart:
            view, extra = self._queries_view()
            inputs.append(QueryView(view, (*(field.name for field in self._asked), *extra)))
        return tuple(inputs)

    def _queries_view(self) -> tuple[str, tuple[str, ...]]:
        """The view with the rows that are asked for, and its columns that are no fields."""
        own = [column for column in self._extra(self._plan.entity) if column == IDENTITY]
        return ROWS if self._apart else self._plan.entity, (ROW, *own)

    def _extra(self, of: str) -> tuple[str, ...]:
        """The columns of a source's view that are no fields."""
        source = self._plan.sources[of]
        ordered = any(group.ordered for group in self._groups if group.source == of)
        numbered = of == self._plan.entity and not self._apart
        identified = ordered and needs_identity(source)
        dates = [FROM, UNTIL] if has_versions(source) else []
        return (*([ROW] if numbered else []), *([IDENTITY] if identified else []), *dates)


def _view(fields: Sequence[Field], view: str, extra: Sequence[str]) -> str:
    columns = [f"{canonical(name(field.name), field.dtype)} AS {name(field.name)}" for field in fields]
    return f"SELECT {', '.join([*columns, *map(name, extra)])} FROM {name(view)}"


def _value(spec: FeatureSpec, kinds: dict[str, Kind], known: dict[str, Kind]) -> str:
    assert spec.expr is not None
    value, kind = expression(spec.expr, kinds, known, column=lambda column: name(f"raw {column}"))
    return convert(value, kind, spec.dtype)
