"""Columns that give the target away: by hand, and exactly those that training would refuse."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.project.new.leaks import gives_away
from cumulant.training.evaluation.leakage import check_leakage
from cumulant.training.policy import TrainingPolicy

HALF = [0, 1] * 40
NUMBERS = [float(n) for n in range(120)]


@pytest.mark.parametrize(
    ("values", "target", "leaks"),
    [
        # a few rows: only the same classes under other names
        ([0, 1, 0, 1], [0, 1, 0, 1], True),
        (["a", "b", "a", "b"], [False, True, False, True], True),
        ([1, 0, 1, 0], [0, 1, 0, 1], True),
        ([0, 1, 0, 0], [0, 1, 0, 1], False),
        ([0, 1, 2, 3], [0, 1, 0, 1], False),
        ([None] * 4, [0, 1, 0, 1], False),
        ([1, 1, 1, 1], [0, 1, 0, 1], False),
        ([0, 1], [1, 1], False),
        # classes
        ([value * 7 + n % 3 for n, value in enumerate(HALF)], HALF, True),  # one cut tells them apart
        ([n % 4 for n in range(80)], HALF, False),  # pure, but only by knowing each value
        ([f"code {n % 4}" for n in range(80)], HALF, True),
        ([f"name {n}" for n in range(80)], HALF, False),  # names rows
        (["reason" if value else None for value in HALF], HALF, True),  # filled in afterwards
        ([value if n else 1 - value for n, value in enumerate(HALF)], HALF, False),
        (
            [None if n % 9 == 0 else value for n, value in enumerate(HALF)],
            HALF,
            True,
        ),  # the target, wherever it is known
        ([None if n % 9 == 0 else str(value) for n, value in enumerate(HALF)], HALF, False),
        (
            [value if known else 5 for value, known in zip(HALF, [True, True, False, False] * 20, strict=True)],
            [value if n % 2 else None for n, value in enumerate(HALF)],
            False,
        ),
        # numbers
        ([n * 2.5 - 7 for n in range(120)], NUMBERS, True),
        ([-(n**3) for n in range(120)], NUMBERS, True),
        ([1.0, 2.0, 3.0, 4.0] * 30, NUMBERS, False),
        ([None if n % 3 else n * 2.0 for n in range(240)], [float(n) for n in range(240)], False),
        ([None if n % 3 == 0 else n * 2.0 for n in range(240)], [float(n) for n in range(240)], True),
        ([(n * 7) % 120 for n in range(120)], NUMBERS, False),
        ([str(n) for n in range(120)], NUMBERS, True),  # the target as text
        ([str(n + 1) for n in range(120)], NUMBERS, False),
        (["red", "blue"] * 60, NUMBERS, False),  # no numbers
        ([str(n) if n % 9 else "none" for n in range(120)], NUMBERS, False),
        ([f"name {n % 60}" for n in range(120)], [f"name {n % 60}" for n in range(120)], True),
        ([(n % 60 * 7) % 60 for n in range(300)], [f"name {n % 60}" for n in range(300)], True),  # one to one
        ([(n * 7) % 60 for n in range(120)], [f"name {n % 60}" for n in range(120)], False),  # 2 rows a value: chance
        ([f"group {n // 6}" for n in range(480)], [float(n // 6) for n in range(480)], True),
    ],
)
def test_by_hand(values, target, leaks):
    assert gives_away(pl.Series(values), pl.Series(target)) is leaks


cell = st.integers(0, 3) | st.none()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_what_training_would_refuse(data):
    """Exactly that, and numbers that are the target wherever they are known."""
    classes = data.draw(st.integers(2, 3))
    target = data.draw(st.lists(st.integers(0, classes - 1), min_size=60, max_size=90))
    target += [kind for kind in range(classes) for _ in range(10)]
    told = data.draw(
        st.dictionaries(
            st.integers(0, classes - 1), st.lists(cell, min_size=1, max_size=2), min_size=classes, max_size=classes
        )
    )
    noise = data.draw(st.sampled_from([0, 0, 0, 1]))
    values = [told[kind][number % len(told[kind])] for number, kind in enumerate(target)]
    values = [0, *values[1:]] if noise else values
    series = pl.Series("f", values, dtype=pl.Int64)
    if data.draw(st.booleans()):
        series = series.cast(pl.String)
    task = "binary" if classes == 2 else "multiclass"
    try:
        check_leakage(pl.DataFrame([series]), np.array(target, dtype=np.float64), task, spec=TrainingPolicy(target="y"))
        refused = False
    except DataError:
        refused = True
    known = {(value, kind) for value, kind in zip(series, target, strict=True) if value is not None}
    apart = len({value for value, _ in known}) == len(known) == len({kind for _, kind in known})
    found = gives_away(series, pl.Series(target))
    assert found is refused or (found and apart and series.dtype.is_numeric())


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=60, max_size=90, unique=True),
    st.sampled_from(["same", "reversed", "cube", "swapped", "none"]),
)
def test_numbers_that_training_would_refuse(target, how):
    made = {
        "same": lambda x: x,
        "reversed": lambda x: -x,
        "cube": lambda x: x / 3 + 1,
        "swapped": lambda x: x,
        "none": lambda x: 1.0,
    }[how]
    values = [made(value) for value in target]
    if how == "swapped":
        values[0], values[-1] = values[-1], values[0]
    series = pl.Series("f", values)
    try:
        check_leakage(pl.DataFrame([series]), np.array(target), "regression", spec=TrainingPolicy(target="y"))
        refused = False
    except DataError:
        refused = True
    assert gives_away(series, pl.Series(target)) is refused
