"""Columns that give the target away, found in a table alone.

They include what training refuses as a feature, so that a project as it is written first can train. Beyond that, a
column that is the target or a recoding of it, one to one, is left out where training would not refuse it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

#: a target with more values than this is a number to be predicted, not a class
_CLASSES = 50
#: in smaller tables, and of rarer classes, agreement may be chance: there only a column of the same classes counts
_FEW_ROWS, _FEW_OF_A_CLASS = 50, 10
#: text with fewer rows a value than this could name its rows
_ROWS_PER_VALUE = 5
#: of whether a value is missing, as a prediction of a class or of a larger number: ROC AUC, in either direction
_MOST_AUC = 0.75


def gives_away(values: pl.Series, target: pl.Series) -> bool:
    """Whether a column alone determines the target in every row where the target is known.

    Classes: each value of the column (missing is one) holds one class only, and not because it names the rows: text
    has several rows a value, and numbers in order need one cut for each change of class. Numbers: the column's order
    is the target's, or its reverse. Of a target with many values: a column that equals it, as text or as numbers;
    numbers that recode it one to one; text with several rows a value, each value with one target.
    """
    import polars as pl

    both = pl.DataFrame({"value": values, "target": target}).drop_nulls("target")
    classes = both["target"].n_unique()
    if classes < 2 or both["value"].null_count() == both.height:
        return False
    if both["target"].dtype.is_numeric() and values.dtype.is_numeric() and _same_order(both):
        return True
    if classes > _CLASSES:
        return _is_equal(both) or (_is_recoding(both) if values.dtype.is_numeric() else _names_classes(both))
    rarest = both["target"].value_counts()["count"].min()
    if both.height < _FEW_ROWS or not isinstance(rarest, int) or rarest < _FEW_OF_A_CLASS:
        return both["value"].n_unique() == classes == both.unique().height
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return _is_pure(both) and _cuts(both) <= classes
    return _names_classes(both)


def missing_predicts(values: pl.Series, target: pl.Series) -> bool:
    """Whether a missing value alone separates a class from the others, or large numbers from small ones, strongly."""
    import polars as pl

    both = pl.DataFrame({"missing": values.is_null(), "target": target}).drop_nulls("target")
    missing = int(both["missing"].sum())
    if both["target"].n_unique() > _CLASSES and both["target"].dtype.is_numeric():
        # A group's mean rank beyond the middle, as a share of the other group's rows, is its AUC beyond 0.5.
        beyond = both["target"].rank().filter(both["missing"]) - (both.height + 1) / 2
        return 0 < missing < both.height and abs(float(beyond.sum()) / missing) > (_MOST_AUC - 0.5) * (
            both.height - missing
        )
    for (_,), rows in both.group_by("target"):
        rest, own = both.height - rows.height, int(rows["missing"].sum())
        if min(rows.height, rest) >= _FEW_OF_A_CLASS:
            apart = own / rows.height - (missing - own) / rest
            if abs(apart) > 2 * (_MOST_AUC - 0.5):
                return True
    return False


def _is_pure(both: pl.DataFrame) -> bool:
    """Whether no value goes with two targets."""
    return both.unique().height == both["value"].n_unique()


def _names_classes(both: pl.DataFrame) -> bool:
    return both["value"].n_unique() * _ROWS_PER_VALUE <= both.height and _is_pure(both)


def _is_recoding(both: pl.DataFrame) -> bool:
    """Whether values and targets go together one to one, and not because each is there about once."""
    return _names_classes(both) and both["value"].n_unique() == both["target"].n_unique()


def _is_equal(both: pl.DataFrame) -> bool:
    """Whether each value is the target, or what is written there reads as the same number."""
    import polars as pl

    same = pl.col("value").cast(pl.String) == pl.col("target").cast(pl.String)
    if both["target"].dtype.is_numeric():
        number = pl.col("value").cast(pl.Float64, strict=False) == pl.col("target").cast(pl.Float64)
        same = same | number.fill_null(value=False)  # text that is no number; `all` would pass over nulls
    equal = both.drop_nulls().select(same.all()).item()
    return bool(equal) and both["value"].drop_nulls().len() >= max(_FEW_ROWS, both.height / 2)


def _cuts(both: pl.DataFrame) -> int:
    """How often the class changes along the sorted values; missing ones come last."""
    ordered = both.unique().sort("value", nulls_last=True)["target"]
    return int((ordered != ordered.shift()).fill_null(value=False).sum())


def _same_order(both: pl.DataFrame) -> bool:
    known = both.drop_nulls()
    if known.height < max(_FEW_ROWS, both.height / 2) or known["value"].n_unique() < 2:
        return False
    first, second = known["value"].rank(), known["target"].rank()
    return bool((first == second).all()) or bool((first == known.height + 1 - second).all())
