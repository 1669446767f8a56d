"""One group of windows and lookups as Spark SQL: its events and the queries in one frame by key and time.

Sums, means and deviations of floats are of the values of a window together, added with the error of each addition kept
apart (Knuth's two-sum), so that what cancels leaves what is right within a relative 1e-9.
"""

from __future__ import annotations

from collections.abc import Sequence

from cumulant.core.plan import Corrections, FeaturePlan, Field, Lookup, Source, Window
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.definition.dtypes import Kind, resolve
from cumulant.features.offline.groups import MeasureGroup, content_columns, reach_us
from cumulant.features.offline.row_identity import NO_IDENTITY
from cumulant.features.spark.expressions import convert, expression
from cumulant.features.spark.sql_text import finite, let, name, null

#: a column that a table has beside those of its source: the identity of a row's key
IDENTITY = "__identity"

_ERROR = "((a.s - ((a.s + x) - ((a.s + x) - a.s))) + (x - ((a.s + x) - a.s)))"
#: the sum of an array of floats
_SUM = (
    "aggregate({0}, named_struct('s', 0D, 'c', 0D), "
    f"(a, x) -> named_struct('s', a.s + x, 'c', a.c + {_ERROR}), a -> a.s + a.c)"
)
#: what keeps sums of large floats below the largest one; exact, as a power of two
_SCALE = "CASE WHEN array_max(transform(v.a, x -> abs(x))) > 1e290D THEN power(2D, -200D) ELSE 1D END"
_SCALED = f"transform(array({_SCALE}), k -> {_SUM.format('transform(v.a, x -> x * k)')} {{0}} / k)[0]"
#: deviations from the mean of `v.a`, in units of the largest: of their squares less what the mean is wrong by
_DEVIATION = (
    f"transform(array({_SUM.format('v.a')} / size(v.a)), m -> "
    "transform(array(array_max(transform(v.a, x -> abs(x - m)))), k -> CASE WHEN k = 0D THEN 0D ELSE k * sqrt("
    "aggregate(v.a, named_struct('q', 0D, 'd', 0D), (a, x) -> "
    "named_struct('q', a.q + ((x - m) / k) * ((x - m) / k), 'd', a.d + (x - m) / k), "
    "a -> greatest(0D, a.q - a.d * a.d / size(v.a))) / (size(v.a) - 1)) END)[0])[0]"
)


def needs_identity(source: Source) -> bool:
    """Whether the identity of a row's key must come with the table: it is a hash that no function of Spark gives."""
    dtypes = {field.name: field.dtype for field in source.fields}
    return bool(source.key) and not (len(source.key) == 1 and dtypes[source.key[0]] == "int")


def has_versions(source: Source) -> bool:
    """Whether rows of the source correct each other, so that each is in force for a time."""
    return isinstance(source.corrections, Corrections)


class GroupQuery:
    """The query of one group. `apart`: rows to predict are no rows of the history, and may count in their own windows.

    Its text reads `source:NAME` and `queries`, and gives `__row` and a column for each measure. Where all events of a
    window count, they are aggregated as they come; else they are collected, those that count are taken, and these are
    aggregated.
    """

    def __init__(self, plan: FeaturePlan, group: MeasureGroup, *, apart: bool) -> None:
        self._group, self._source = group, plan.sources[group.source]
        self._own, self._dated = apart and group.counts_itself, has_versions(self._source)
        self._columns: dict[str, Kind] = {field.name: field.dtype for field in self._source.fields}
        self._fields: Sequence[Field] = plan.request if apart else plan.sources[plan.entity].fields
        self._view = name("source:" + self._source.name)

    def text(self) -> str:
        numbers = {reach: number for number, reach in enumerate(self._reaches())}
        frames = ", ".join(f"w{number} AS ({self._frame(reach)})" for reach, number in numbers.items())
        rows = f"{self._events()} UNION ALL {self._queries()}"
        collects = self._own or self._dated
        if collects:
            lists = ", ".join(f"{self._collected(number, reach)} AS `a{number}`" for reach, number in numbers.items())
            rows = f"SELECT *, {lists} FROM ({rows}) WINDOW {frames}"
        results = ", ".join(
            f"{self._result(of, measure, numbers[reach_us(measure)], collects=collects)} AS {name(of)}"
            for of, measure in self._group.measures.items()
        )
        windows = "" if collects else f" WINDOW {frames}"
        return f"SELECT * FROM (SELECT {name(ROW)}, {results} FROM ({rows}){windows}) WHERE {name(ROW)} IS NOT NULL"

    def _frame(self, reach: int | None) -> str:
        begin = "UNBOUNDED" if reach is None else f"{reach - 1}L"
        keys = ", ".join(f"`k{at}`" for at in range(len(self._group.by)))
        return f"PARTITION BY {keys} ORDER BY `__at` RANGE BETWEEN {begin} PRECEDING AND CURRENT ROW"

    def _events(self) -> str:
        values = [*self._keys(), "`__at`", "CAST(NULL AS BIGINT)", self._order(), "true", *self._values(self._columns)]
        values += [name(FROM), name(UNTIL)] if self._dated else []
        values += ["NULL", "NULL", *(null(kind) for kind in self._group.kinds)] if self._own else []
        return (
            f"SELECT {self._named(values)} FROM (SELECT *, {self._entry()} AS `__at` FROM {self._view}) "
            f"WHERE {self._keyed()} AND `__at` IS NOT NULL"
        )

    def _queries(self) -> str:
        values = [*self._keys(), "`__moment`", name(ROW), "NULL", "NULL", *(null(kind) for kind in self._group.kinds)]
        values += ["NULL", "NULL"] if self._dated else []
        if self._own:
            kinds: dict[str, Kind] = {field.name: field.dtype for field in self._fields}
            values += ["`__own_at`", self._order("__own_at", own=True), *self._values(kinds)]
        return f"SELECT {self._named(values)} FROM ({self._asked()}) WHERE {self._keyed()} AND `__moment` IS NOT NULL"

    def _asked(self) -> str:
        """The queries, with the moment at which each enters that may count itself and is not in the history."""
        if not self._own:
            return "SELECT * FROM queries"
        if not self._source.key:
            return f"SELECT *, {self._entry()} AS `__own_at` FROM queries"
        columns = dict.fromkeys((*self._source.key, *self._group.by))
        same = " AND ".join(f"h.{name(column)} = q.{name(column)}" for column in columns)
        same += f" AND {_in_force('h.' + name(FROM), 'h.' + name(UNTIL), 'q.`__moment`')}" if self._dated else ""
        known = (
            f"SELECT DISTINCT q.{name(ROW)} AS `__known` FROM queries q JOIN (SELECT *, {self._entry()} AS `__at` "
            f"FROM {self._view}) h ON {same} WHERE h.`__at` IS NOT NULL"
        )
        return (
            "SELECT q.*, CASE WHEN `__known` IS NULL THEN `__enters` END AS `__own_at` FROM "
            f"(SELECT *, {self._entry()} AS `__enters` FROM queries) q LEFT JOIN ({known}) ON `__known` = q.{name(ROW)}"
        )

    def _named(self, values: Sequence[str]) -> str:
        slots = range(len(self._group.kinds))
        keys = [f"k{at}" for at in range(len(self._group.by))]
        dates = [FROM, UNTIL] if self._dated else []
        own = ["__own_at", "__own", *(f"o{at}" for at in slots)] if self._own else []
        names = [*keys, "__at", ROW, "__order", "__event", *(f"v{at}" for at in slots), *dates, *own]
        return ", ".join(f"{value} AS {name(of)}" for value, of in zip(values, names, strict=True))

    def _keys(self) -> list[str]:
        return [name(column) for column in self._group.by]

    def _keyed(self) -> str:
        return " AND ".join(f"{name(column)} IS NOT NULL" for column in self._group.by)

    def _entry(self) -> str:
        """When a row enters; null where it never does."""
        entry = self._group.entry
        assert self._source.event_time is not None
        times = [(self._source.event_time, entry.delay_us), *entry.columns]
        moments = [f"({name(column)} + {delay}L)" for column, delay in times]
        if len(moments) == 1:
            return moments[0]
        known = " AND ".join(f"{name(column)} IS NOT NULL" for column, _ in times)
        return f"CASE WHEN {known} THEN greatest({', '.join(moments)}) END"

    def _order(self, at: str = "__at", *, own: bool = False) -> str:
        """What decides which of two events is later. Of rows without a key, the row to predict (`own`) is the last."""
        assert self._source.event_time is not None
        if not self._group.ordered:
            return "NULL"
        identity, content = f"CAST('{NO_IDENTITY}' AS BIGINT)", ""
        if not self._source.key:
            values = (
                null(self._columns[of]) if own else _unsigned(name(of), self._columns[of])
                for of in content_columns(self._source)
            )
            content = "".join([f", 'p', {int(own)}", *(f", 'c{at}', {value}" for at, value in enumerate(values))])
        elif needs_identity(self._source):
            identity = name(IDENTITY)
        else:
            identity = f"coalesce({name(self._source.key[0])}, {identity})"
        event = name(self._source.event_time)
        return f"named_struct('a', {name(at)}, 'e', {event}, 'i', {identity}{content})"

    def _values(self, columns: dict[str, Kind]) -> list[str]:
        values = []
        for node, kind in zip(self._group.values, self._group.kinds, strict=True):
            value, own = expression(resolve(node, columns)[0], columns)
            values.append(convert(value, own, kind))
        return values

    def _collected(self, window: int, reach: int | None) -> str:
        """The events of a window that count at the moment, the row itself with them."""
        slots = range(len(self._group.kinds))
        values = ", ".join(["'o', `__order`", *(f"'v{at}', `v{at}`" for at in slots)])
        dates = f", 'f', {name(FROM)}, 'u', {name(UNTIL)}" if self._dated else ""
        events = f"collect_list(CASE WHEN `__event` THEN named_struct({values}{dates}) END) OVER w{window}"
        if self._dated:
            taken = ", ".join(["'o', e.o", *(f"'v{at}', e.v{at}" for at in slots)])
            events = f"filter({events}, e -> {_in_force('e.f', 'e.u', '`__at`')})"
            events = f"transform({events}, e -> named_struct({taken}))"
        if not self._own:
            return events
        counts = "`__own_at` <= `__at`" + ("" if reach is None else f" AND `__own_at` > `__at` - {reach}L")
        own = ", ".join(["'o', `__own`", *(f"'v{at}', `o{at}`" for at in slots)])
        return f"concat({events}, filter(array(named_struct({own})), e -> {counts}))"

    def _reaches(self) -> list[int | None]:
        return list(dict.fromkeys(reach_us(measure) for measure in self._group.measures.values()))

    def _result(self, of: str, measure: Window | Lookup, window: int, *, collects: bool) -> str:
        slot = self._group.slots[of]
        if isinstance(measure, Lookup):
            rows = f"`a{window}`" if collects else f"CASE WHEN `__event` THEN {_row(slot)} END"
            return f"({f'array_max({_taken(rows, slot)})' if collects else f'max({rows}) OVER w{window}'}).v"
        if measure.value is None:
            return f"CAST(size(`a{window}`) AS BIGINT)" if collects else f"count(`__event`) OVER w{window}"
        kind = self._group.kinds[slot]
        if collects:
            return _aggregated(measure.agg, slot, kind, f"filter(`a{window}`, e -> e.v{slot} IS NOT NULL)")
        return _windowed(measure.agg, slot, kind, window)


def _in_force(begin: str, end: str, moment: str) -> str:
    return f"({begin} IS NULL OR {begin} <= {moment}) AND ({end} IS NULL OR {moment} < {end})"


def _row(slot: int) -> str:
    return f"named_struct('o', `__order`, 'v', `v{slot}`)"


def _taken(rows: str, slot: int) -> str:
    return f"transform({rows}, e -> named_struct('o', e.o, 'v', e.v{slot}))"


def _windowed(agg: str, slot: int, kind: Kind, window: int) -> str:
    """An aggregation of all events of a window."""
    value, over = f"`v{slot}`", f"OVER w{window}"
    if agg == "count":
        return f"count({value}) {over}"
    if agg in {"min", "max"}:
        return f"{agg}({_number(value, kind)}) {over}"
    if agg == "distinct":
        return f"CAST(size(collect_set({_unsigned(value, kind)}) {over}) AS BIGINT)"
    if agg == "last":
        return f"(max(CASE WHEN {value} IS NOT NULL THEN {_row(slot)} END) {over}).v"
    if kind in {"int", "bool"} and agg in {"sum", "mean"}:
        return _whole(agg, f"sum({_decimal(value, kind)}) {over}", f"count({value}) {over}")
    return _real(agg, f"collect_list({convert(value, kind, 'float')}) {over}")


def _aggregated(agg: str, slot: int, kind: Kind, rows: str) -> str:
    """An aggregation of collected events that have a value."""
    value = f"e.v{slot}"
    if agg == "count":
        return f"CAST(size({rows}) AS BIGINT)"
    if agg in {"min", "max"}:
        return f"array_{agg}(transform({rows}, e -> {_number(value, kind)}))"
    if agg == "distinct":
        return f"CAST(size(array_distinct(transform({rows}, e -> {_unsigned(value, kind)}))) AS BIGINT)"
    if agg == "last":
        return f"(array_max({_taken(rows, slot)})).v"
    if kind in {"int", "bool"} and agg in {"sum", "mean"}:
        numbers = f"transform({rows}, e -> {_decimal(value, kind)})"
        total = "aggregate(v.a, CAST(0 AS DECIMAL(38, 0)), (s, x) -> CAST(s + x AS DECIMAL(38, 0)))"
        return let([numbers], f"CASE WHEN size(v.a) > 0 THEN {_whole(agg, total, 'size(v.a)')} END")
    return _real(agg, f"transform({rows}, e -> {convert(value, kind, 'float')})")


def _whole(agg: str, total: str, rows: str) -> str:
    """A sum or mean of whole numbers, of their exact sum."""
    return f"try_cast({total} AS BIGINT)" if agg == "sum" else f"try_divide(CAST({total} AS DOUBLE), {rows})"


def _real(agg: str, values: str) -> str:
    """A sum, mean or deviation of an array of floats."""
    if agg == "std":
        return finite(let([values], f"CASE WHEN size(v.a) > 1 THEN {_DEVIATION} END"))
    scaled = _SCALED.format("" if agg == "sum" else "/ size(v.a)")
    return finite(let([values], f"CASE WHEN size(v.a) > 0 THEN {scaled} END"))


def _number(value: str, kind: Kind) -> str:
    return convert(value, kind, "int") if kind == "bool" else value


def _unsigned(value: str, kind: Kind) -> str:
    """Of the two zeros of floats, which are equal, the positive one."""
    return f"{value} + 0D" if kind == "float" else value


def _decimal(value: str, kind: Kind) -> str:
    return f"CAST({convert(value, kind, 'int')} AS DECIMAL(20, 0))"
