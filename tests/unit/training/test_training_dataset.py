"""Gathering rows: what is used, what is left out, and which feature gives the target away."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError, DefinitionError, NotFoundError
from cumulant.training.dataset import training_set
from cumulant.training.evaluation.leakage import check_leakage
from cumulant.training.policy import TrainingPolicy
from cumulant.training.spec import DecisionCost

SPEC = TrainingPolicy(target="y")


def test_rows_keep_their_order_times_and_costs(table, rows_of):
    costly = {"cost": DecisionCost(false_negative="loss", false_positive=2)}
    rows = rows_of("late", table, **costly)
    assert (rows.task, rows.classes, len(rows)) == ("binary", ("false", "true"), table.height)
    assert rows.false_negative.tolist() == table["loss"].to_list()
    assert set(rows.false_positive) == {2.0}
    assert (np.diff(rows.at) == 3_600_000_000).all()
    part = rows.take(np.array([5, 3]))
    assert part.rows.tolist() == [5, 3]
    assert part.features["z"].to_list() == [table["z"][5], table["z"][3]]
    assert part.slices["shop"].to_list() == [table["shop"][5], table["shop"][3]]


def test_rows_without_a_label_or_a_time_are_left_out(table):
    target = table["late"].cast(pl.Int8).scatter([0, 7], None)
    at = table["at"].clone().scatter(3, None)
    rows = training_set(table.select("x", "z"), target, spec=SPEC, at=at)
    assert rows.unlabelled == 2
    assert not {0, 3, 7} & set(rows.rows.tolist())
    assert len(rows) == table.height - 3


def test_a_label_without_a_known_time_came_with_its_row(table):
    known = table["known"].clone().scatter(4, None)
    rows = training_set(table.select("x", "z"), table["late"], spec=SPEC, at=table["at"], known=known)
    assert rows.known[4] == rows.at[4]
    assert rows.known[5] == rows.at[5] + 86_400_000_000


def test_columns_that_no_model_reads_are_named(table):
    features = table.select("x").with_columns(
        day=date(2020, 1, 1), empty=None, tags=pl.lit("a").repeat_by(2), __row=pl.lit(1)
    )
    rows = training_set(features, table["late"], spec=SPEC)
    assert rows.features.columns == ["x"]
    assert [note.split()[0] for note in rows.notes] == ["day", "empty", "tags"]
    with pytest.raises(DefinitionError, match="no feature"):
        training_set(features.select("day"), table["late"], spec=SPEC)


def test_costs_must_be_there_and_be_costs(table):
    def gathered(cost, column):
        spec = TrainingPolicy(target="late", cost=cost)
        return training_set(table.select("x"), table["late"], spec=spec, costs=column)

    with pytest.raises(NotFoundError, match="loss"):
        gathered(DecisionCost(false_negative="loss"), table.select("x"))
    with pytest.raises(DataError, match="null, negative"):
        gathered(DecisionCost(false_negative="loss"), table.select(-pl.col("loss")))
    with pytest.raises(DataError, match="negative"):
        gathered(DecisionCost(false_positive=-1), None)


def test_a_sample_keeps_the_shares_of_classes(table, rows_of):
    rows = rows_of("late", table)
    part = rows.sample(0.1, seed=3)
    assert len(part) == pytest.approx(0.1 * len(rows), abs=2)
    assert part.rate == pytest.approx(rows.rate, abs=0.01)
    assert (np.diff(part.rows) > 0).all()
    assert part.rows.tolist() == rows.sample(0.1, seed=3).rows.tolist()
    assert part.notes[-1] == f"a random 10% of the rows: learned from {len(part):,} of {len(rows):,}"


def leaking(name, values, target, **options):
    frame = pl.DataFrame({name: values, "noise": np.random.default_rng(0).normal(size=len(target))})
    return training_set(frame, pl.Series("y", target), spec=TrainingPolicy(target="y", **options))


BOOL = (np.arange(400) % 7 < 2).tolist()
NUMBER = (np.random.default_rng(1).normal(size=400) ** 3).tolist()


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (BOOL, BOOL),
        ([not value for value in BOOL], BOOL),
        ([f"{value}!" for value in BOOL], BOOL),
        ([5.0 + value for value in BOOL], BOOL),
        ([100 + number if hit else -number for number, hit in enumerate(BOOL)], BOOL),
        ([1.0 if hit else None for hit in BOOL], BOOL),
        (["x" if hit else None for hit in BOOL], BOOL),
        (NUMBER, NUMBER),
        ([-3 * value + 2 for value in NUMBER], NUMBER),
        (list(np.tanh(np.array(NUMBER) / 10)), NUMBER),
        (["abc"[number % 3] for number in range(300)], ["xyz"[number % 3] for number in range(300)]),
        ([number % 3 for number in range(300)], ["xyz"[number % 3] for number in range(300)]),
        ([f"g{round(value)}" for value in range(20)] * 20, [float(value) for value in range(20)] * 20),
    ],
)
def test_a_feature_that_determines_the_target_is_refused_by_name(values, target):
    with pytest.raises(DataError, match="feature gift determines the target y") as caught:
        leaking("gift", values, target)
    assert caught.value.subject == "gift"
    assert "allow: [gift]" in caught.value.hint
    assert len(leaking("gift", values, target, allow=["gift"])) == len(target)


def test_a_feature_that_nearly_determines_it_is_told():
    nearly = [value if number else not value for number, value in enumerate(BOOL * 10)]
    rows = leaking("gift", nearly, BOOL * 10)
    assert "gift alone determines the target" in rows.warnings[0]


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_good_features_are_not_called_leaks(seed):
    """Strong but honest: an area under the curve near 0.9, a correlation of 0.98, an identifier."""
    generator = np.random.default_rng(seed)
    score = generator.normal(size=400)
    truth = (score + generator.normal(scale=0.6, size=400) > 0).astype(float)
    features = pl.DataFrame({"score": score, "id": [f"row-{number}" for number in range(400)], "n": np.arange(400)})
    assert check_leakage(features, truth, "binary", spec=SPEC) == ()
    number = score + generator.normal(scale=0.2, size=400)
    assert check_leakage(features, number, "regression", spec=SPEC) == ()


def test_few_rows_agree_by_chance_and_are_not_called_leaks():
    rows = leaking("gift", [True, False] * 12, [True, False] * 12)
    assert (rows.notes, rows.warnings) == ((), ())
