"""Generated cases for compilers of feature plans: what is delivered of two sources, and what queries must get.

A case is a function of its kind and seed. Its values are plain: numbers, texts, and times with the zone UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random
from typing import Any

from cumulant.core.plan import Corrections, DType, FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.core.units import micros, to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import col
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.testing.plans import oracle
from cumulant.testing.plans.oracle import Row

KINDS: Mapping[str, str] = {
    "in order": "rows arrive in the order of their event times",
    "out of order": "rows arrive in any order",
    "late": "columns that become known later arrive later, in any order",
    "duplicated": "some rows arrive several times",
    "contradicted": "some rows arrive again with other values, which change nothing",
    "corrected": "rows have versions, some of which delete, that arrive in any order and again; the latest known one "
    "counts, of several with one known time that with the greatest number",
    "ties": "many rows become known at one moment",
    "nulls": "keys, times and values are missing",
    "without a key": "rows of the source `other` have no key, and many become known at one moment",
}
START = datetime(2024, 3, 30, 22, tzinfo=UTC)
HALF = timedelta(minutes=30)
#: columns of both sources; the last three are of versions
DTYPES: Mapping[str, DType] = {
    "id": "int",
    "part": "str",
    "card": "str",
    "shop": "int",
    "at": "time",
    "done": "time",
    "amount": "float",
    "items": "int",
    "label": "bool",
    "word": "str",
    "state": "str",
    "grade": "int",
    "sent": "time",
    "op": "str",
    "revision": "int",
}
_OF_VERSIONS = ("sent", "op", "revision")
SOURCES = ("tx", "other")
_AMOUNTS = (0.1, 0.2, -0.3, 1e9, 1e9 + 1e-3, 1e16, 1.0, -0.0, 5e-324, 3.14)
_ITEMS = (1, 2, -3, 0, 2**62, 17 * 10**17)
_LATE = frozenset({"done", "word", "state"})
#: features to which the order of rows of the source `other` matters, and one of the other source
_ORDERED = (
    *("items_last", "near", "ever", "word"),
    *("items_by_event", "near_by_event", "ever_by_event", "word_by_event"),
)
#: columns that versions of a row change, and their values
_CORRECTED: Mapping[str, Sequence[Any]] = {"amount": _AMOUNTS, "card": "ab", "state": "abcd"}
_AGGREGATIONS = ("sum", "mean", "min", "max", "std", "distinct", "last", "count")


@dataclass(frozen=True)
class PlanCase:
    """`deliveries`: what arrives of each source, in this order: whole rows, or pieces that have its key.

    Rows without a key cannot be posted: a compiler that takes events begins with those of `accepted`. `queries`: rows
    to predict, once everything has arrived; some of them are rows of the history.
    """

    kind: str
    seed: int
    plan: FeaturePlan
    deliveries: Mapping[str, Sequence[Row]]
    queries: Sequence[Row]

    @cached_property
    def accepted(self) -> dict[str, list[Row]]:
        """The rows that the deliveries amount to, as a table holds them; of versions `__from` and `__until`."""
        return {name: accept(self.plan.sources[name], rows) for name, rows in self.deliveries.items()}

    @cached_property
    def expected(self) -> list[Row]:
        """The windows and lookups of each query."""
        return oracle.features(self.plan, self.accepted, self.queries)

    def mismatches(self, values: Sequence[Row], rel: float = 1e-9) -> list[tuple[int, str, Any, Any]]:
        """Values of the queries that are wrong: query, feature, the value and the right one."""
        return [
            (at, name, mine[name], right)
            for at, (mine, row) in enumerate(zip(values, self.expected, strict=True))
            for name, right in row.items()
            if not oracle.same(mine[name], right, rel)
        ]


def plan_case(kind: str, seed: int, count: int = 16) -> PlanCase:
    """The case of a kind (`KINDS`) and seed, with `count` rows of each source."""
    random = Random(f"{kind} {seed}")  # noqa: S311 - invented rows
    key = ("part", "id") if seed % 2 else ("id",)
    plan = _plan(kind, {"tx": key, "other": () if kind == "without a key" else key}, HALF * (seed % 3))
    rows = {name: [_row(random, kind, number) for number in random.sample(range(50), count)] for name in SOURCES}
    deliveries = {name: _deliver(random, kind, plan.sources[name], rows[name]) for name in SOURCES}
    queries = [_row(random, kind, 100 + number) for number in range(8)]
    if kind == "corrected":
        queries = [row | {"at": START + HALF * random.randrange(16, 19)} for row in queries]  # after every correction
    else:
        queries += random.sample(rows["tx"], 2)
    return PlanCase(kind, seed, plan, deliveries, queries)


def accept(of: Source, deliveries: Sequence[Row]) -> list[Row]:
    """The rows of a source by the definition of what is accepted, in the order in which their keys first came.

    Pieces of a row are merged by key, and each column keeps its first value. Of a source with corrections, each row
    is a version in force from its known time until that of the next; equal ones are one, and a deletion is none.
    """
    if not of.key:
        return list(deliveries)
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for row in deliveries:
        by_key.setdefault(tuple(row[name] for name in of.key), []).append(row)
    if isinstance(of.corrections, Corrections):
        return [version for rows in by_key.values() for version in _versions(of.corrections, rows)]
    return [_merged(rows) for rows in by_key.values()]


def _merged(pieces: Sequence[Row]) -> Row:
    merged: Row = dict.fromkeys(DTYPES)
    for piece in pieces:
        merged |= {name: value for name, value in piece.items() if merged[name] is None}
    return merged


def _versions(corrections: Corrections, rows: Sequence[Row]) -> list[Row]:
    (known, sequence), marker = corrections.order, corrections.marker
    latest = {row[known.name]: row for row in sorted(rows, key=lambda row: row[sequence.name])}
    ordered = sorted(latest.values(), key=lambda row: row[known.name])
    begins: list[int | None] = [None, *(to_micros(row[known.name]) for row in ordered[1:])]
    versions = [
        row | {"__from": begin, "__until": end}
        for row, begin, end in zip(ordered, begins, [*begins[1:], None], strict=True)
    ]
    return [row for row in versions if marker is None or row[marker.name] not in corrections.deletes]


def _plan(kind: str, keys: Mapping[str, tuple[str, ...]], offset: timedelta) -> FeaturePlan:
    corrected = kind == "corrected"
    names = [name for name in DTYPES if corrected or name not in _OF_VERSIONS]
    fields = tuple(Field(name, DTYPES[name]) for name in names)
    known = {name: KnownAt(column="done") for name in ("word", "state")}
    known |= {name: KnownAt(delay_us=micros(2 * HALF)) for name in ("label", "grade")}
    sources = {name: Source(name, keys[name], "at", fields, known) for name in SOURCES}
    if corrected:
        known["state"] = KnownAt(column="sent")
        rule = Corrections((Field("sent", "time"),), Field("op", "str"), ("D",), Field("revision", "int"))
        sources = {name: Source(name, keys[name], "at", fields, known, rule) for name in SOURCES}
    definitions = _definitions()
    if kind == "without a key":
        definitions = {name: definitions[name] for name in _ORDERED}
    return compile_plan(collect(definitions), sources, entity="tx", predict_at=PredictAt("at", micros(offset)))


def _definitions() -> dict[str, Any]:
    tx, other = source("tx"), source("other")
    card, pair, there = tx.by("card"), tx.by("card", "shop"), other.by("card")
    windows = ["1h", "3h", "2d"]
    return {
        **{f"amount_{agg}": getattr(card, agg)("amount", window=windows) for agg in _AGGREGATIONS},
        **{f"items_{agg}": getattr(there, agg)("items", window=windows) for agg in _AGGREGATIONS},
        "n": card.count(window=windows),
        "words": there.distinct("word", window=windows),
        "word": card.last("word", window=windows),
        "word_by_event": card.last("word", window=windows, order="event_time"),
        "items_by_event": there.last("items", window=windows, order="event_time"),
        "rate": card.mean("label", window=windows),
        "share": pair.mean(col("amount") > 0, window=windows),
        "first": pair.min("at", window="2d"),
        "near": other.as_of("card", "shop", within="2h").columns("amount", "word"),
        "ever": other.as_of("card").columns("items", "label"),
        "near_by_event": other.as_of("card", "shop", within="2h", order="event_time").columns("done", "grade"),
        "ever_by_event": other.as_of("card", order="event_time").columns("state"),
    }


def _row(random: Random, kind: str, number: int) -> Row:
    """A row; of some kinds at one of three moments, of the kind `nulls` with each column but its key missing."""
    ties = kind in ("ties", "without a key")
    at = START + HALF * random.randrange(3 if ties else 12)
    row: Row = {
        "id": number,
        "part": f"p{number % 7}",
        "card": random.choice("ab"),
        "shop": random.choice((1, 2)),
        "at": at,
        "done": START + 6 * HALF if ties else at + HALF * random.randrange(10),
        "amount": random.choice((*_AMOUNTS, None)),
        "items": random.choice((*_ITEMS, None)),
        "label": random.choice((True, False, None)),
        "word": random.choice(("x", "y", "é", "", None)),
        "state": random.choice(("a", "b", "c", "d", None)),
        "grade": random.choice((*range(9), None)),
    }
    if kind == "nulls":
        row |= {name: None for name in row if name not in ("id", "part") and random.random() < 0.25}
    return row


def _deliver(random: Random, kind: str, of: Source, rows: Sequence[Row]) -> list[Row]:
    if kind == "corrected":
        versions = [version for row in rows for version in _corrections(random, row)]
        versions += random.choices(versions, k=len(versions) // 4)
        return random.sample(versions, len(versions))
    if kind == "in order":
        return sorted(rows, key=lambda row: row["at"])
    if kind == "late":
        early = [{name: value for name, value in row.items() if name not in _LATE} for row in rows]
        late = [{name: row[name] for name in (*of.key, *sorted(_LATE))} for row in rows]
        return early + random.sample(late, len(late))
    if kind == "duplicated":
        again = [*rows, *random.choices(rows, k=len(rows))]
        return random.sample(again, len(again))
    if kind == "contradicted":
        return [*rows, *(_contradiction(row) for row in random.sample(rows, len(rows) // 2))]
    return random.sample(rows, len(rows))


def _contradiction(row: Row) -> Row:
    """The row with another value of each column that has one and is no part of its key."""
    other = {
        "card": "b" if row["card"] == "a" else "a",
        "at": START,
        "done": START,
        "amount": 7.0,
        "items": 5,
        "grade": 9,
    }
    return row | {name: value for name, value in other.items() if row[name] is not None}


def _corrections(random: Random, row: Row) -> list[Row]:
    """Versions of a row, some of which are known at one moment, and some of which delete it."""
    moments = sorted(random.choices(range(16), k=random.randint(1, 4)))
    versions = []
    for place, moment in enumerate(moments):
        changed = {name: random.choice(values) for name, values in _CORRECTED.items()}
        deletes = place and random.random() < 0.25
        order = {"sent": START + HALF * moment, "revision": place}
        versions.append(row | changed | order | {"op": "D" if deletes else "U"})
    return versions
