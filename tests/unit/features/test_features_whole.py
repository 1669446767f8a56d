"""Sums and means of whole numbers that do not fit 64 bits, on every path."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from cumulant.core.plan import Field, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.kernel.whole import WholeSums, exact_sum
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.testing.online import MemoryOnline

AT = datetime(2024, 3, 1, tzinfo=UTC)
FIELDS = (Field("id", "int"), Field("card", "str"), Field("at", "time"), Field("cents", "int"))
BIG = 1_700_000_000_000_000_000
card = source("tx").by("card")
PLAN = compile_plan(
    collect({"total": card.sum("cents", window="7d"), "mean": card.mean("cents", window="7d")}),
    {"tx": Source("tx", ("id",), "at", FIELDS)},
    entity="tx",
    predict_at=None,
)


def rows_of(values: list[int]) -> list[dict[str, Any]]:
    return [{"id": i, "card": "a", "at": AT + timedelta(seconds=i), "cents": v} for i, v in enumerate(values)]


def expected(values: list[int]) -> dict[str, Any]:
    total = sum(values)
    return {"total_7d": total if -(2**63) <= total < 2**63 else None, "mean_7d": float(total) / len(values)}


@pytest.mark.parametrize("length", [8, 700])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_of_large_numbers_is_right_and_a_sum_beyond_64_bits_is_null(length: int, sign: int) -> None:
    values = [sign * BIG] * length
    rows = rows_of(values)
    frame = pl.DataFrame(rows, schema_overrides={"at": pl.Datetime("us", "UTC")})
    offline = compute(PLAN, {"tx": frame}).to_dicts()
    for i in (0, 4, 5, length - 1):
        assert {name: offline[i][name] for name in PLAN.names} == expected(values[: i + 1])
    filled, posted = MemoryOnline(), MemoryOnline()
    materialize(PLAN, {"tx": frame.head(length - 1)}, filled, table="t")
    materialize(PLAN, {"tx": frame.clear()}, posted, table="t")
    OnlineFeatures(PLAN, posted, "t").advance("tx", rows[:-1])
    for store in (filled, posted):
        served = OnlineFeatures(PLAN, store, "t").vectors(rows[-1:]).columns
        assert {name: served[name][0] for name in PLAN.names} == {name: offline[-1][name] for name in PLAN.names}
    apart = compute(PLAN, {"tx": frame.head(length - 1)}, rows=frame.tail(1))
    assert apart.select(PLAN.names).to_dicts() == [{name: offline[-1][name] for name in PLAN.names}]


def test_whole_sums_of_ranges() -> None:
    rng = np.random.default_rng(0)
    edge = np.array([2**63 - 1, -(2**63), 2**62, -1, 0, 3])
    for values in (rng.integers(-9, 9, 200), rng.choice(edge, 200), rng.integers(-(2**63), 2**63 - 1, 200)):
        extra = rng.permutation(values)[:100]
        lo = rng.integers(0, 200, 100)
        hi, joins = np.minimum(lo + rng.integers(0, 60, 100), 200), rng.random(100) < 0.5
        sums = WholeSums(values, extra)
        found, fits = sums.between(lo, hi, with_extra=joins)
        floats = sums.floats(lo, hi, with_extra=joins)
        for q in range(100):
            right = sum(values[lo[q] : hi[q]].tolist()) + (int(extra[q]) if joins[q] else 0)
            assert floats[q] == float(right)
            assert (fits is None or bool(fits[q])) == (-(2**63) <= right < 2**63)
            if fits is None or fits[q]:
                assert found[q] == right
            assert exact_sum(values[lo[q] : hi[q]]) == sum(values[lo[q] : hi[q]].tolist())
