"""The page of what each engine of feature plans computes: every cell is what the engine's own compiler answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cumulant.core.errors import CumulantError
from cumulant.core.expr import OPERATORS, Call, Node
from cumulant.core.plan import Corrections, FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.definition.tiers import tiers
from cumulant.testing.expressions import CASES as CASES_OF_OPERATORS
from cumulant.testing.expressions import KINDS

YES = "yes"
_DTYPES = {"id": "int", "card": "str", "at": "time", "done": "time", "amount": "float", "items": "int", "ok": "bool"}
_FIELDS = tuple(Field(name, dtype) for name, dtype in _DTYPES.items())
_TX = Source("tx", ("id",), "at", _FIELDS, {"ok": KnownAt(delay_us=3_600_000_000)})
_PREPARE = {"tx": "features.py:clean"}


class Probe(NamedTuple):
    """A plan that has one thing in it. `functions`: of sources, their `prepare`."""

    label: str
    define: Callable[[Any], Any]
    source: Source = _TX
    predict_at: PredictAt = PredictAt("at")
    functions: Mapping[str, str] = {}
    lateness: int | None = 0

    def plan(self) -> FeaturePlan:
        definitions = {"f": self.define(source("tx"))}
        return compile_plan(collect(definitions), {"tx": self.source}, entity="tx", predict_at=self.predict_at)


def _window(agg: str, column: str) -> Callable[[Any], Any]:
    return lambda tx: getattr(tx.by("card"), agg)(column, window="1d")


def _count(window: str) -> Callable[[Any], Any]:
    return lambda tx: tx.by("card").count(window=window)


def _changed(**changes: Any) -> Source:
    import msgspec

    return msgspec.structs.replace(_TX, **changes)


_LATER = _TX.known | {"amount": KnownAt(column="done")}
_LOCAL = tuple(Field(name, dtype, zone="Europe/Paris" if name == "at" else None) for name, dtype in _DTYPES.items())

AGGREGATIONS = (
    Probe("`count` of rows", _count("1d")),
    Probe("`count` of values", _window("count", "amount")),
    Probe("`distinct`", _window("distinct", "amount")),
    Probe("`min`, `max`", _window("min", "amount")),
    Probe("`sum`, `mean` of whole numbers", _window("sum", "items")),
    Probe("`sum`, `mean` of floats", _window("mean", "amount")),
    Probe("`std` of numbers", _window("std", "amount")),
    Probe("`std` of true/false", _window("std", "ok")),
    Probe("`last`", _window("last", "amount")),
    Probe("`as_of`, with or without `within`", lambda tx: tx.as_of("card").columns("amount")),
    Probe(
        '`last` or `as_of` with `order="event_time"`', lambda tx: tx.as_of("card", order="event_time").columns("amount")
    ),
)
SITUATIONS = (
    Probe("`known_time` a delay after the event", _window("mean", "ok")),
    Probe("`known_time` another column", _window("sum", "amount"), _changed(known=_LATER)),
    Probe("`on_repeat: latest`", _count("1d"), _changed(corrections=Corrections((Field("done", "time"),)))),
    Probe(
        '`order="event_time"`, and `known_time` another column',
        lambda tx: tx.as_of("card", order="event_time").columns("amount"),
        _changed(known=_LATER),
    ),
    Probe("rows of `prepare`", _count("1d"), functions=_PREPARE),
    Probe("`last` or `as_of` of a source whose key is not one whole number", _window("last", "amount"), _changed(key=("id", "card"))),
    Probe("`last` or `as_of` of a source without a key", _window("last", "amount"), _changed(key=())),
    Probe("a prediction at an offset from the event", _count("1d"), predict_at=PredictAt("at", 1_800_000_000)),
    Probe("a prediction at another column than the event time", _count("1d"), predict_at=PredictAt("done")),
    Probe("a window above 999 days", _count("1000d")),
    Probe("event times of a zone, without an offset", _count("1d"), _changed(fields=_LOCAL)),
    Probe("a source without `lateness`", _count("1d"), lateness=None),
)  # fmt: skip


def offline(probe: Probe) -> str:
    import polars as pl

    from cumulant.features.offline.offline import compute
    from cumulant.features.offline.polars_compiler import TYPES

    schema = {field.name: TYPES[field.dtype] for field in probe.source.fields}
    compute(probe.plan(), {"tx": pl.DataFrame(schema=schema)})
    return YES


def online(probe: Probe) -> str:
    import polars as pl

    from cumulant.features.offline.polars_compiler import TYPES
    from cumulant.features.online.materialization import materialize
    from cumulant.features.online.online import OnlineFeatures
    from cumulant.testing.online import MemoryOnline

    plan, store = probe.plan(), MemoryOnline()
    materialize(
        plan,
        {"tx": pl.DataFrame(schema={field.name: TYPES[field.dtype] for field in probe.source.fields})},
        store,
        table="t",
    )
    OnlineFeatures(plan, store, "t").vectors([dict.fromkeys(field.name for field in probe.source.fields)])
    functions = [function for tier in tiers(plan, probe.functions).values() for function in tier.functions]
    return f"{YES}, from rows as the function returns them" if functions else YES


def spark(probe: Probe) -> str:
    import polars as pl

    from cumulant.features.distributed.history import compute_in
    from cumulant.features.offline.polars_compiler import TYPES
    from cumulant.testing.compute import DirectHistory

    row = pl.DataFrame(schema={field.name: TYPES[field.dtype] for field in probe.source.fields}).clear(1)
    with tempfile.TemporaryDirectory() as folder:
        list(compute_in(DirectHistory(Path(folder)), probe.plan(), {"tx": row}))
    return YES


def flink(probe: Probe) -> str:
    from cumulant.features.flink.compiler import JSON, StreamTable, compile_query
    from cumulant.features.flink.refusals import refusals

    plan = probe.plan()
    refused = refusals(plan, functions=probe.functions, lateness={"tx": probe.lateness})
    if refused:
        return f"no: {'; '.join(dict.fromkeys(refusal.reason for refusal in refused))}"
    return YES if compile_query(plan, {"tx": StreamTable(0, JSON)}).text else ""


ENGINES: dict[str, Callable[[Probe], str]] = {
    "embedded, history": offline,
    "embedded, online": online,
    "Spark": spark,
    "Flink SQL": flink,
}


def answer(engine: Callable[[Probe], str], probe: Probe) -> str:
    try:
        return engine(probe)
    except CumulantError as error:
        return f"no: {error.message}"


def table(title: str, probes: tuple[Probe, ...]) -> Iterator[str]:
    yield f"| {title} | {' | '.join(ENGINES)} |"
    yield f"|---|{'---|' * len(ENGINES)}"
    for probe in probes:
        yield f"| {probe.label} | {' | '.join(answer(engine, probe) for engine in ENGINES.values())} |"


def operators() -> Iterator[str]:
    computed = {engine: {op for op in OPERATORS if compiles(op)} for engine, compiles in _compilers().items()}
    everywhere = [op for op in OPERATORS if all(op in ops for ops in computed.values())]
    yield f"Every engine computes these {len(everywhere)} operators: {', '.join(f'`{op}`' for op in everywhere)}."
    for op in OPERATORS:
        if op not in everywhere:
            yield f"`{op}`: {', '.join(engine for engine, ops in computed.items() if op in ops)}."


def _compilers() -> dict[str, Callable[[str], bool]]:
    """Of each engine, whether an operator compiles."""
    from cumulant.features.flink import expressions as flink
    from cumulant.features.flink.sql_text import QuerySteps
    from cumulant.features.offline import polars_compiler as polars
    from cumulant.features.online.python_compiler import compile_node as python

    def tried(compiled: Callable[[Node], object]) -> Callable[[str], bool]:
        def compiles(op: str) -> bool:
            try:
                compiled(
                    next(case.node for case in CASES_OF_OPERATORS if isinstance(case.node, Call) and case.node.op == op)
                )
            except KeyError:
                return False
            return True

        return compiles

    return dict(
        zip(
            ENGINES,
            (
                tried(lambda node: polars.expression(node, KINDS)),
                tried(lambda node: python(node, KINDS)),
                tried(lambda node: polars.expression(node, KINDS)),  # in the workers of Spark
                tried(lambda node: flink.expression(node, QuerySteps().let, KINDS)),
            ),
            strict=True,
        )
    )


LINES = "\n"
INTRODUCTION = """# Engines of feature plans

What each engine computes of a [feature plan](feature-plan.md). Generated: a cell is what the engine or its compiler answers \
to a plan with that in it, `yes` or the words in which it is refused.

Embedded is the process of Cumulant itself, for the [history](../how-to/features.md) and [online](../how-to/feature-store.md), \
where rows of streams enter as they come. Spark computes [the history](../how-to/features-on-spark.md), Flink \
[rows of streams](../how-to/features-on-flink.md).
"""


def page() -> str:
    sections = (
        ("Windows and lookups", table("aggregation", AGGREGATIONS)),
        ("Sources, moments and durations", table("the plan has", SITUATIONS)),
        ("Operators", operators()),
    )
    return INTRODUCTION + "".join(f"\n## {title}\n\n{LINES.join(lines)}\n" for title, lines in sections)
