"""What a new project says of columns that nearly give the target away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cumulant.project.new.create import create_from
from cumulant.project.new.leak_notes import leak_notes

ROWS = 2_000


def trips(*, wrong: float = 0.01) -> pl.DataFrame:
    """Taxi trips: the total is the sum of its parts but for a few rows; the tax is nearly constant, `twice` a copy."""
    dice = np.random.default_rng(3)
    fare, tolls = dice.integers(10, 400, ROWS) / 4, (dice.random(ROWS) < 0.1) * 6.12
    tip, tax = (
        np.where(dice.random(ROWS) < 0.6, np.round(fare * 0.2, 2), 0.0),
        np.where(dice.random(ROWS) < 0.99, 0.5, 0),
    )
    total = fare + tolls + tip + tax + np.where(dice.random(ROWS) < wrong, dice.normal(0, 30, ROWS), 0)
    frame = {"fare": fare, "twice": 2 * fare, "tolls": tolls, "tip": tip, "tax": tax, "total": total}
    return pl.DataFrame({**frame, "hour": dice.integers(0, 24, ROWS)})


def notes(frame: pl.DataFrame, target: str) -> list[str]:
    return leak_notes(frame, [name for name in frame.columns if name != target], frame[target], target)


def test_a_target_that_columns_add_up_to_is_named_with_them():
    (one,) = notes(trips(), "total")
    assert one.startswith("warning: total = fare + tolls + tip in 9") or "total = fare + tolls + tip + tax in 9" in one


def test_a_column_that_contains_the_target_is_named():
    (one,) = notes(trips(), "tip")
    assert "tip = total - fare - tolls" in one
    assert "leave out in features.py" in one


def test_missing_parts_count_as_zero():
    frame = trips().with_columns(pl.when(pl.col("tolls") > 0).then("tolls"))
    assert "tip = total - fare - tolls" in notes(frame, "tip")[0]


@pytest.mark.parametrize("target", ["fare", "tip", "total"])
def test_a_sum_that_often_fails_is_no_sum(target):
    assert not [one for one in notes(trips(wrong=0.3).drop("twice"), target) if " = " in one]


def test_a_near_copy_is_named_and_a_strong_feature_is_not():
    dice = np.random.default_rng(4)
    price = dice.lognormal(3, 1, ROWS)
    near, strong = price * 1.19 + dice.normal(0, 0.1, ROWS), price + dice.normal(0, 10, ROWS)
    (one,) = notes(pl.DataFrame({"price": price, "near": near, "strong": strong}), "price")
    assert one.startswith("warning: near correlates with price by more than 0.999: ")


@pytest.mark.parametrize(("slips", "named"), [(3, True), (200, False)])
def test_a_text_that_names_the_class_nearly_always_is_named(slips, named):
    late = [number % 10 == 0 for number in range(ROWS)]
    kind = [("closed" if one else "open") if number >= slips else "open" for number, one in enumerate(late)]
    found = notes(pl.DataFrame({"late": late, "kind": kind}), "late")
    assert bool(found) == named
    assert not named or found[0].startswith("warning: kind names the class of late in nearly all rows: ")


def test_chance_is_no_leak():
    dice = np.random.default_rng(5)
    columns = {f"x{place}": dice.normal(size=ROWS) for place in range(20)}
    zero_often = np.where(dice.random(ROWS) < 0.97, 0, dice.normal(size=ROWS))
    frame = pl.DataFrame({**columns, "rare": zero_often, "text": dice.choice(list("abc"), ROWS)})
    for target in (
        zero_often * 2 + dice.normal(size=ROWS),
        zero_often,
        dice.normal(size=ROWS),
        dice.random(ROWS) < 0.02,
    ):
        assert leak_notes(frame.drop("rare"), [*columns, "text"], pl.Series(target), "y") == []
    assert leak_notes(frame.head(20), [*columns, "text"], pl.Series(zero_often[:20]), "y") == []


def test_a_new_project_says_so_also_of_an_expression(tmp_path):
    trips().write_parquet(tmp_path / "trips.parquet")
    for number, target in enumerate(("tip", "tip > 2")):
        made = create_from(tmp_path / "trips.parquet", target, name=f"p{number}", directory=tmp_path)
        assert [one for one in made.assumptions if "tip = total - fare - tolls" in one]
        assert "total" in (made.path / "features.py").read_text()
