"""Which rows stay together in a split without times."""

import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.flows.training.training_rows import groups_of
from cumulant.training.policy import EvaluationPolicy

COLUMNS = {
    "visit": pl.Series([1, 2, 3, 4]),
    "customer": pl.Series(["a", "a", "b", "b"]),
    "shop": pl.Series(["n", "n", "n", "s"]),
}


def test_rows_of_a_key_of_several_columns_are_grouped_by_the_first_that_repeats():
    found = groups_of(COLUMNS, EvaluationPolicy(), ("visit", "customer"))
    assert found.to_list() == ["a", "a", "b", "b"]
    assert groups_of(COLUMNS, EvaluationPolicy(), ("customer", "visit")).to_list() == ["a", "a", "b", "b"]


def test_a_key_of_one_column_says_nothing_of_groups():
    assert groups_of(COLUMNS, EvaluationPolicy(), ("visit",)) is None
    assert groups_of(COLUMNS, EvaluationPolicy(), ()) is None


def test_what_is_declared_goes_before_the_key():
    assert groups_of(COLUMNS, EvaluationPolicy(clusters="row"), ("customer", "visit")) is None
    assert groups_of(COLUMNS, EvaluationPolicy(clusters="shop"), ("customer", "visit")).to_list() == list("nnns")
    with pytest.raises(DataError, match="neither a feature nor a column"):
        groups_of(COLUMNS, EvaluationPolicy(clusters="till"), ())
