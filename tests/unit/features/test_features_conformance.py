"""Both compilers of feature plans against the public cases: offline over tables, online filled and from events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

import msgspec
import polars as pl
import pytest

from cumulant.core.plan import FeatureSpec, Source
from cumulant.features.ingested.batch_writer import EventBatchWriter
from cumulant.features.offline.frames import read_fields
from cumulant.features.offline.offline import compute
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.state_update import advance
from cumulant.ports.online import Cells, Result
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans import oracle
from cumulant.testing.plans.cases import DTYPES, PlanCase, plan_case
from cumulant.testing.plans.conformance import PlanConformance
from cumulant.testing.plans.oracle import Row

VERSIONS = {"__from": pl.Int64, "__until": pl.Int64}


def frame(of: Source, rows: Sequence[Row]) -> pl.DataFrame:
    versions = VERSIONS if any("__from" in row for row in rows) else {}
    return pl.DataFrame(rows, schema={name: TYPES[dtype] for name, dtype in DTYPES.items()} | versions)


def served(case: PlanCase, store: MemoryOnline) -> list[Row]:
    columns = OnlineFeatures(case.plan, store, "t").vectors(case.queries).columns
    return [{name: values[at] for name, values in columns.items()} for at in range(len(case.queries))]


class TestOffline(PlanConformance):
    def features(self, case: PlanCase) -> list[Row]:
        sources = case.plan.sources
        frames = {name: frame(sources[name], rows) for name, rows in case.accepted.items()}
        return compute(case.plan, frames, rows=frame(sources["tx"], case.queries)).to_dicts()


class TestFilledOnline(PlanConformance):
    def features(self, case: PlanCase) -> list[Row]:
        store = MemoryOnline()
        frames = {name: frame(case.plan.sources[name], rows) for name, rows in case.accepted.items()}
        materialize(case.plan, frames, store, table="t")
        return served(case, store)


def begin(case: PlanCase, store: MemoryOnline) -> list[str]:
    """Fill a table with the rows that have no key; the sources whose rows arrive."""
    sources = case.plan.sources
    tables = {name: [] if sources[name].key else rows for name, rows in case.accepted.items()}
    materialize(case.plan, {name: frame(sources[name], rows) for name, rows in tables.items()}, store, table="t")
    return [name for name in case.deliveries if sources[name].key]


class TestPostedOnline(PlanConformance):
    def features(self, case: PlanCase) -> list[Row]:
        store = MemoryOnline()
        names, writer = begin(case, store), StateWriter(case.plan, store, "t")
        for name in names:
            rows = case.deliveries[name]
            for start in range(0, len(rows), 7):
                advance([writer], name, rows[start : start + 7])
        return served(case, store)


class TestIngestedOnline(PlanConformance):
    """Batches of a stream of whole rows, in a process that is killed between any two changes and begun again."""

    def features(self, case: PlanCase) -> list[Row]:
        random, store = Random(f"{case.kind} {case.seed}"), KilledOnline()
        names = begin(case, store)
        arrivals = case.accepted if case.kind == "late" else case.deliveries
        for name in names:
            rows = arrivals[name]
            ends = sorted({*random.sample(range(len(rows)), 3), len(rows)})
            batches = [rows[start:end] for start, end in pairwise([0, *ends])]
            for _ in range(3):
                store.lives = random.randrange(1, 12)
                follow(case, store, name, batches)
            store.lives = -1
            assert follow(case, store, name, batches)
            follow(case, store, name, batches, again=True)
        return served(case, store)


class KilledError(Exception):
    """The process ended here."""


class KilledOnline(MemoryOnline):
    """A store whose writer is killed before or after its next change but `lives`."""

    lives = -1

    def update(self, change: Callable[[Cells], Result]) -> Result:
        self.lives -= 1
        if self.lives == 1:
            raise KilledError
        result = super().update(change)
        if self.lives == 0:
            raise KilledError
        return result


def follow(case: PlanCase, store: KilledOnline, name: str, batches: list[list[Row]], *, again: bool = False) -> bool:
    """Whether a process that begins where the table stands (`again`: at the first batch) got to the last one."""
    of = case.plan.sources[name]
    corrections = () if isinstance(of.corrections, msgspec.UnsetType) else of.corrections.fields
    fields = [*{field.name: field for field in (*of.fields, *corrections)}.values()]
    frames = [read_fields(name, fields, frame(of, rows)) for rows in batches]
    writer = EventBatchWriter(StateWriter(case.plan, store, "t"), name)
    applied = 0 if again else writer.applied()
    for earlier in frames[:applied]:
        writer.remember(earlier)
    try:
        for number in range(applied, len(frames)):
            writer.apply(number + 1, frames[number])
    except KilledError:
        return False
    return writer.applied() == len(frames)


def test_the_cases_tell_the_order_of_event_times_from_that_of_known_times() -> None:
    wrong = set()
    for case in [plan_case(kind, seed) for kind in ("out of order", "corrected") for seed in range(2)]:
        plan = msgspec.structs.replace(case.plan, features=[without_order(spec) for spec in case.plan.features])
        wrong |= {name for _, name, _, _ in case.mismatches(oracle.features(plan, case.accepted, case.queries))}
    assert {"word_by_event_2d", "done", "grade", "state"} <= wrong


def without_order(spec: FeatureSpec) -> FeatureSpec:
    lookup, window = (
        None if measure is None else msgspec.structs.replace(measure, order=msgspec.UNSET)
        for measure in (spec.lookup, spec.window)
    )
    return msgspec.structs.replace(spec, lookup=lookup, window=window)


@pytest.mark.parametrize("kind", ["ties", "duplicated", "contradicted", "corrected"])
def test_the_cases_tell_the_order_and_the_number_of_arrivals_from_the_definition(kind: str) -> None:
    """Each row as it arrives, and rows of one moment by their values, gives other values."""
    case = plan_case(kind, 0)
    sources = {name: msgspec.structs.replace(one, key=()) for name, one in case.plan.sources.items()}
    plan = msgspec.structs.replace(case.plan, sources=sources)
    values = oracle.features(plan, case.deliveries, case.queries[:8])  # none of which is in the history
    assert case.mismatches(values + case.expected[8:])
