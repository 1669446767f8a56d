"""One group of windows and lookups as Flink SQL: its events and the rows to predict in one stream by key and time.

Windows are OVER windows, which Flink keeps up to date as rows come and leave. So that what leaves takes nothing else
with it, sums are of whole numbers: a float is the sum of four, in units of 2^40, 1, 2^-60 and 2^-120. What is smaller
adds nothing, and a value of 2^102 (5e30) or more makes the sums of windows with it null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulant.core.plan import FeaturePlan, Lookup, Window
from cumulant.features.definition.dtypes import Kind, resolve
from cumulant.features.flink.expressions import convert, expression
from cumulant.features.flink.refusals import MILLISECOND_US
from cumulant.features.flink.sql_text import TYPES, Let, QuerySteps, constant, decimal, interval, name, null, whole
from cumulant.features.offline.groups import MeasureGroup

#: the column with the event time of Flink
ROWTIME = "__at"
_FLOATS = {bits: constant(2.0**bits, "float") for bits in (40, 60)}
_WHOLES = {bits: f"CAST('{2**bits}' AS DECIMAL(38, 0))" for bits in (60, 100)}
_LIMIT = constant(2.0**102, "float")
_PARTS = range(4)
_SHIFT = f"CAST('{2**63}' AS DECIMAL(20, 0))"
#: characters of the order of an event in its text: known time, event time and identity
_ORDER = 60


class GroupStep:
    """The step of a query that adds the measures of one group to rows to predict.

    `events` are rows of the group's source in inside types with `__event` and `__entry`, their event time and the time
    of entry in microseconds. `rows` has `carried`, columns by kind, among them those of `by`.
    """

    def __init__(self, plan: FeaturePlan, group: MeasureGroup) -> None:
        self._group, self._source = group, plan.sources[group.source]
        self._columns: dict[str, Kind] = {field.name: field.dtype for field in self._source.fields}
        self._float_sums = {
            group.slots[of]
            for of, measure in group.measures.items()
            if isinstance(measure, Window) and measure.agg in {"sum", "mean"} and self._kind(of) == "float"
        }

    def text(self, events: str, rows: str, carried: Mapping[str, Kind], by: Sequence[str]) -> str:
        """`by`: the columns of `rows` that hold the group's key."""
        query = f"{self._events(events, carried)} UNION ALL {self._rows(rows, carried, by)}"
        columns = self._aggregations()
        for number, reach in enumerate(dict.fromkeys(reach for reach, _ in columns)):
            listed = ", ".join(f"{agg} OVER w AS {name(of)}" for (own, agg), of in columns.items() if own == reach)
            # results first: in the order of a window's own output Flink drops this step, and its names come twice
            query = f"SELECT {listed}, `t{number}`.* FROM ({query}) AS `t{number}` WINDOW w AS ({self._frame(reach)})"
        steps = QuerySteps()
        keyed = " AND ".join(f"`k{at}` IS NOT NULL" for at in range(len(by)))
        results = [
            f"CASE WHEN {keyed} THEN {self._result(of, columns, steps.let)} END AS {name(of)}"
            for of in self._group.measures
        ]
        query = steps.around(f"SELECT * FROM ({query}) WHERE `e` IS NULL")
        return f"SELECT {', '.join([*map(name, carried), name(ROWTIME), *results])} FROM ({query})"

    def _frame(self, reach: int | None) -> str:
        keys = ", ".join(f"`k{at}`" for at in range(len(self._group.by)))
        # a window is open on its left: of its last moment a millisecond, which is the distance of two moments
        begin = (
            "UNBOUNDED" if reach is None else interval(-(-reach // MILLISECOND_US) * MILLISECOND_US - MILLISECOND_US)
        )
        return f"PARTITION BY {keys} ORDER BY {name(ROWTIME)} RANGE BETWEEN {begin} PRECEDING AND CURRENT ROW"

    def _kind(self, of: str) -> Kind:
        slot = self._group.slots[of]
        return "null" if slot < 0 else self._group.kinds[slot]

    def _events(self, events: str, carried: Mapping[str, Kind]) -> str:
        steps = QuerySteps()
        values = []
        for node, kind in zip(self._group.values, self._group.kinds, strict=True):
            value, own = expression(resolve(node, self._columns)[0], steps.let, self._columns)
            values.append(steps.let(convert(value, own, kind)))
        columns = {
            **{of: null(kind) for of, kind in carried.items()},
            ROWTIME: name(ROWTIME),
            "e": "CAST(1 AS BIGINT)",
            **{f"k{at}": name(of) for at, of in enumerate(self._group.by)},
            **{f"v{slot}": value for slot, value in enumerate(values)},
        }
        if self._group.ordered:
            order = f"CONCAT({', '.join(map(_digits, ('__entry', '__event', self._source.key[0])))})"
            for slot, (value, kind) in enumerate(zip(values, self._group.kinds, strict=True)):
                shown = f"CASE WHEN {value} IS NULL THEN '0' ELSE CONCAT('1', {_shown(value, kind)}) END"
                columns[f"o{slot}"] = f"CONCAT({order}, {shown})"
        for slot in self._float_sums:
            columns |= _parts(values[slot], slot)
        known = " AND ".join(f"{name(of)} IS NOT NULL" for of in (*self._group.by, "__entry"))
        listed = ", ".join(f"{value} AS {name(of)}" for of, value in columns.items())
        return f"SELECT {listed} FROM ({steps.around(f'SELECT * FROM {events} WHERE {known}')})"

    def _rows(self, rows: str, carried: Mapping[str, Kind], by: Sequence[str]) -> str:
        columns = {
            **{of: name(of) for of in carried},
            ROWTIME: name(ROWTIME),
            "e": null("int"),
            **{f"k{at}": name(of) for at, of in enumerate(by)},
            **{f"v{slot}": null(kind) for slot, kind in enumerate(self._group.kinds)},
        }
        if self._group.ordered:
            columns |= {f"o{slot}": null("str") for slot in range(len(self._group.values))}
        for slot in self._float_sums:
            columns |= {f"p{slot}_{part}": null("int") for part in (*_PARTS, "big")}
        return f"SELECT {', '.join(f'{value} AS {name(of)}' for of, value in columns.items())} FROM {rows}"

    def _aggregations(self) -> dict[tuple[int | None, str], str]:
        """The aggregations of each reach, and the columns that they get."""
        columns: dict[tuple[int | None, str], str] = {}
        for of, measure in self._group.measures.items():
            for agg in self._reads(of, measure):
                columns.setdefault((self._group.reach_us(measure), agg), f"a{len(columns)}")
        return columns

    def _reads(self, of: str, measure: Window | Lookup) -> list[str]:
        """What a measure aggregates, in the order in which `_result` takes it."""
        slot, kind = self._group.slots[of], self._kind(of)
        value = f"`v{slot}`"
        if isinstance(measure, Lookup):
            return [f"MAX(`o{slot}`)"]
        if measure.agg in {"count", "distinct"}:
            zero = f"({value} + {constant(0.0, 'float')})" if kind == "float" else value  # of the two zeros one
            return [f"COUNT({'`e`' if slot < 0 else value if measure.agg == 'count' else f'DISTINCT {zero}'})"]
        if measure.agg in {"min", "max", "last"}:
            last = f"CASE WHEN {value} IS NOT NULL THEN `o{slot}` END"
            number = convert(value, kind, "int") if kind == "bool" else value
            return [f"MAX({last})" if measure.agg == "last" else f"{measure.agg.upper()}({number})"]
        count = f"COUNT({value})"
        if kind == "float":
            parts = [f"SUM({decimal(name(f'p{slot}_{part}'), 20)})" for part in _PARTS]
            return [count, *parts, f"COUNT(`p{slot}_big`)"]
        return [count, f"SUM({decimal(convert(value, kind, 'int'), 20)})"]

    def _result(self, of: str, columns: Mapping[tuple[int | None, str], str], let: Let) -> str:
        measure, kind = self._group.measures[of], self._kind(of)
        read = [name(columns[self._group.reach_us(measure), agg]) for agg in self._reads(of, measure)]
        if isinstance(measure, Lookup) or measure.agg == "last":
            return _value(read[0], kind)
        if len(read) == 1:
            return read[0]
        count, *sums = read
        if measure.agg == "std":  # of 1 and 0, whose squares are themselves
            above = let(f"CAST({decimal(count)} * {sums[0]} - {sums[0]} * {sums[0]} AS DOUBLE)")
            below = f"CAST({decimal(count)} * ({decimal(count)} - 1) AS DOUBLE)"
            return f"CASE WHEN {count} > 1 THEN SQRT({above} / {below}) END"
        mean = f" / CAST({count} AS DOUBLE)" if measure.agg == "mean" else ""
        if kind == "float":
            total = f"{_float_sum(sums[:-1])}{mean}"
            return f"CASE WHEN {count} > 0 AND {sums[-1]} = 0 THEN {total} END"
        total = f"CAST({sums[0]} AS DOUBLE){mean}" if mean else whole(sums[0])
        return f"CASE WHEN {count} > 0 THEN {total} END"


def _parts(value: str, slot: int) -> dict[str, str]:
    """A float as four whole numbers, each the digits between two units; null where it is too large."""
    small = f"ABS({value}) < {_LIMIT}"
    below = f"({value} - CAST({_truncated(value, 0)} AS DOUBLE))"
    least = f"({value} * {_FLOATS[60]} - CAST({_truncated(value, 60)} AS DOUBLE))"
    digits = (
        _truncated(value, -40),
        f"CAST({value} - CAST({_truncated(value, -40)} AS DOUBLE) * {_FLOATS[40]} AS BIGINT)",
        f"CAST({below} * {_FLOATS[60]} AS BIGINT)",
        f"CAST({least} * {_FLOATS[60]} AS BIGINT)",
    )
    # above these there are no digits below
    whole_from = (None, None, constant(2.0**53, "float"), constant(2.0**-7, "float"))
    parts = {
        f"p{slot}_{part}": f"CASE WHEN {small if limit is None else f'ABS({value}) < {limit}'} THEN {of} "
        f"WHEN {small} THEN CAST(0 AS BIGINT) END"
        for part, (of, limit) in enumerate(zip(digits, whole_from, strict=True))
    }
    return parts | {f"p{slot}_big": f"CASE WHEN {value} IS NOT NULL AND NOT ({small}) THEN CAST(1 AS BIGINT) END"}


def _truncated(value: str, bits: int) -> str:
    """A float in units of 2 to the power of -`bits`, without what is smaller."""
    scaled = value if bits == 0 else f"{value} {'*' if bits > 0 else '/'} {_FLOATS[abs(bits)]}"
    return f"CAST({scaled} AS BIGINT)"


def _float_sum(sums: Sequence[str]) -> str:
    """The sums of four parts as one float: of the first three together, so that they cancel nothing. These are too
    large for that only where they are beyond every digit of the others.
    """
    top, ones, below, least = sums
    exact = f"{top} * {_WHOLES[100]} + {ones} * {_WHOLES[60]} + {below}"
    large = f"CAST({top} AS DOUBLE) * {_FLOATS[40]} + CAST({ones} AS DOUBLE)"
    return (
        f"(COALESCE(CAST({exact} AS DOUBLE) / {_FLOATS[60]}, {large}) "
        f"+ CAST({least} AS DOUBLE) / {_FLOATS[60]} / {_FLOATS[60]})"
    )


def _digits(column: str) -> str:
    """A whole number as text in the order of numbers."""
    return f"LPAD(CAST({decimal(name(column), 20)} + {_SHIFT} AS STRING), 20, '0')"


def _shown(value: str, kind: Kind) -> str:
    return value if kind == "str" else f"CAST({value} AS STRING)"


def _value(shown: str, kind: Kind) -> str:
    """The value behind the order of the last event; null where there is none, or it is null."""
    value = f"SUBSTRING({shown}, {_ORDER + 2})"
    value = value if kind == "str" else f"CAST({value} AS {TYPES[kind]})"
    return f"CASE WHEN SUBSTRING({shown}, {_ORDER + 1}, 1) = '1' THEN {value} END"
