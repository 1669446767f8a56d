"""What a target is, and which targets are refused with what words."""

import math
from datetime import date
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.training.tasks import detect, encode


def found(values, **options):
    return detect(pl.Series("y", values, strict=False), name="y", **options)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([True, False] * 15, "binary", ("false", "true")),
        (["No", "Yes"] * 15, "binary", ("No", "Yes")),
        ([1, 2] * 15, "binary", ("1", "2")),
        ([0.0, 1.0] * 15, "binary", ("0", "1")),
        (["a", "b", "c"] * 10, "multiclass", ("a", "b", "c")),
        (list(range(30)), "regression", ()),
        ([0, 1, 2] * 10, "regression", ()),
        ([Decimal(number) / 4 for number in range(30)], "regression", ()),
    ],
)
def test_the_task_follows_from_the_values(values, task, classes):
    target = found(values)
    assert (target.task, target.classes) == (task, classes)


def test_the_task_can_be_given():
    target = found([0, 1, 2] * 10, task="multiclass")
    assert target.classes == ("0", "1", "2")
    assert target.values[:3].tolist() == [0, 1, 2]
    assert found([0, 1] * 15, task="regression").classes == ()


def test_nulls_and_nan_have_no_label():
    target = found([1.0, 2.0, 3.5, None, math.nan] * 10)
    assert target.labelled.sum() == 30
    assert np.isnan(target.values[3])
    texts = detect(pl.Series(["a", "b", None] * 10), name="y")
    assert texts.labelled.sum() == 20
    kinds = detect(pl.Series(["a", "b", None] * 10, dtype=pl.Categorical), name="y")
    assert kinds.classes == ("a", "b")


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([None] * 30, {}, "null in every row"),
        ([math.nan] * 30, {}, "null in every row"),
        ([7] * 30, {}, '"7" in all of its 30'),
        ([True] * 30, {}, "only one class"),
        ([1.0, math.inf] * 15, {}, "infinite in 15 rows"),
        ([0, 1] * 5, {}, "10 labelled rows"),
        ([0] * 40 + [1] * 3, {}, 'class "1" .* has 3 rows'),
        ([str(number) for number in range(120)] * 5, {}, "120 different values"),
        ([date(2020, 1, 1 + number % 9) for number in range(30)], {}, "type Date"),
        ([b"a", b"b"] * 15, {}, "type Binary"),
        (["a", "b", "c"] * 10, {"task": "binary"}, "3 values where binary needs two"),
        (["a", "b"] * 15, {"task": "regression"}, "no numbers"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(values, options, words):
    with pytest.raises(DataError, match=words) as caught:
        found(values, **options)
    assert caught.value.subject == "y"


def test_known_classes_are_applied_to_later_rows():
    later = encode(pl.Series(["b", "a", "new", None]), task="binary", classes=("a", "b"))
    assert later.values[:2].tolist() == [1, 0]
    assert not later.labelled[2:].any()
    only_one = encode(pl.Series([True, True]), task="binary", classes=("false", "true"))
    assert only_one.values.tolist() == [1, 1]
    assert encode(pl.Series([1, None]), task="regression", classes=()).labelled.tolist() == [True, False]
