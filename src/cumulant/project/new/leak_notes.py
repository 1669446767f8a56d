"""Warnings of columns that may give the target away: sums with it, near copies, categories that name its class.

Columns that do so in every row are no features of a new project (`leaks`); these are, and their author decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: rows that are looked at, and the fewest that show anything
_ROWS, _FEW_ROWS = 5_000, 50
#: more numeric columns than this are not looked through for sums
_COLUMNS = 200
#: a number with fewer values than this is a class, or a count of which many agree by chance
_VALUES = 20
_CORRELATED = 0.999
#: a sum holds where it is off by at most this part of the target's standard deviation ...
_OFF = 1e-3
#: ... in this share of the rows in which the target is not its most frequent value
_SHARE = 0.95
#: of a coefficient of 1 or -1, found among rows of which some do not fit
_NEAR = 0.1
#: refits without the tenth of the rows that fits worst
_REFITS = 3
#: the mean over the classes of the share of rows whose class the value names
_RECALL, _LEAST_OF_A_CLASS, _ROWS_PER_VALUE = 0.99, 10, 5
_LISTED = 8


def leak_notes(rows: pl.DataFrame, features: Sequence[str], label: pl.Series, target: str) -> list[str]:
    """A warning for each way in which `features` of `rows` determine `label` nearly always; `target` names it."""
    import polars as pl

    both = rows.select(*features, label.alias("__label")).drop_nulls("__label")
    both = both.gather_every(max(1, both.height // _ROWS))
    label = both["__label"]
    if both.height < _FEW_ROWS:
        return []
    if label.dtype.is_numeric() and label.n_unique() >= _VALUES:
        numeric = [name for name in features if both[name].dtype.is_numeric() and both[name].n_unique() > 1]
        y = label.cast(pl.Float64)
        copies = [name for name in numeric if _correlation(both[name], y) > _CORRELATED]
        others = [name for name in numeric if name not in copies]
        return _copies(copies, target) + _sums(both.select(others), y, target)
    named = [name for name in features if _names_class(both[name], label)]
    return [] if not named else [_text(f"{', '.join(named)} names the class of {target} in nearly all rows")]


def _text(what: str) -> str:
    return f"warning: {what}: if it is known only with the target, leave it out in features.py"


def _copies(names: list[str], target: str) -> list[str]:
    if not names:
        return []
    return [_text(f"{', '.join(names[:_LISTED])} correlates with {target} by more than {_CORRELATED}")]


def _correlation(values: pl.Series, target: pl.Series) -> float:
    """The absolute correlation of Pearson over the rows in which both are finite; 0 where these are few."""
    import polars as pl

    both = pl.DataFrame({"x": values.cast(pl.Float64), "y": target}).filter(
        pl.col("x").is_finite() & pl.col("y").is_finite()
    )
    if both.height < _FEW_ROWS:
        return 0.0
    correlation = both.select(pl.corr("x", "y")).item()
    return 0.0 if correlation is None else abs(float(correlation))


def _sums(columns: pl.DataFrame, label: pl.Series, target: str) -> list[str]:
    """The target as a sum or difference of columns, where it is one in nearly all rows."""
    import numpy as np
    import polars as pl

    if not 1 <= columns.width <= _COLUMNS:
        return []
    x = columns.select(pl.all().cast(pl.Float64).fill_null(0).fill_nan(0)).to_numpy()
    y = np.asarray(label.fill_nan(0).to_numpy(), dtype=np.float64)
    finite = np.isfinite(x).all(axis=1) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) < _FEW_ROWS or not y.std():
        return []
    own = _independent(x)
    factors = np.zeros(x.shape[1])
    factors[own] = _factors(x[:, own], y)
    terms = np.flatnonzero(factors)
    share = _exact(y - x @ factors, y) if len(terms) else 0.0
    if share < _SHARE:
        return []
    signed = sorted(terms, key=lambda place: -factors[place])
    written = [f"{'+' if factors[place] > 0 else '-'} {columns.columns[place]}" for place in signed]
    more = f" and {len(written) - _LISTED} more" if len(written) > _LISTED else ""
    formula = " ".join(written[:_LISTED]).removeprefix("+ ") + more
    what = f"{target} = {formula} in {share:.1%} of the rows"
    return [f"warning: {what}: leave out in features.py what is known only with the target"]


def _independent(x: Floats) -> NDArray[np.intp]:
    """The columns of x [n, k] that no earlier ones add up to."""
    import numpy as np

    scale = x.std(axis=0)
    moved = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1)
    residuals = np.abs(np.diag(np.linalg.qr(moved, mode="r")))
    independent = np.zeros(x.shape[1], dtype=bool)
    independent[: len(residuals)] = residuals > 1e-6 * np.sqrt(len(x))
    return np.flatnonzero(independent)


def _factors(x: Floats, y: Floats) -> Floats:
    """1, -1 or 0 for each column of x [n, k]: what the least squares of the rows that fit are near to."""
    import numpy as np

    x, y = x - x.mean(axis=0), y - y.mean()
    close_rows = np.ones(len(y), dtype=bool)
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    with_one = np.column_stack([x / scale, np.ones(len(y))])
    for _ in range(_REFITS):
        off = np.abs(y - with_one @ _least_squares(with_one[close_rows], y[close_rows]))
        close_rows = off <= np.quantile(off, 0.9)
    fitted = _least_squares(with_one[close_rows], y[close_rows])[:-1] / scale
    near: Floats = np.where(np.abs(np.abs(fitted) - 1) < _NEAR, np.sign(fitted), 0.0)
    return near


def _least_squares(x: Floats, y: Floats) -> Floats:
    """Of x [n, k]: by its products, a tenth of the time of its singular values; a tenth of 1 is exact enough."""
    import numpy as np

    solution: Floats = np.asarray(np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0], dtype=np.float64)
    return solution


def _exact(rest: Floats, y: Floats) -> float:
    """The share of the rows, without those of the most frequent y, whose rest is the usual one."""
    import numpy as np

    values, counts = np.unique(y, return_counts=True)
    other = y != values[counts.argmax()]
    if other.sum() < _FEW_ROWS:
        return 0.0
    return float((np.abs(rest - np.median(rest))[other] <= _OFF * y.std()).mean())


def _names_class(values: pl.Series, label: pl.Series) -> bool:
    """Whether the most frequent class of each value is that of nearly all rows, over the classes evenly."""
    import polars as pl

    both = pl.DataFrame({"value": values, "label": label})
    classes = [count for (_, count) in label.value_counts().iter_rows()]
    if len(classes) < 2 or min(classes) < _LEAST_OF_A_CLASS:
        return False
    if values.n_unique() * _ROWS_PER_VALUE > both.height:
        return False
    counts = both.group_by("value", "label").len()
    likely = counts.sort("len", descending=True).group_by("value").first().select("value", likely="label")
    with_likely = counts.join(likely, on="value", nulls_equal=True)
    right = pl.col("len").filter(pl.col("label") == pl.col("likely")).sum() / pl.col("len").sum()
    recall = with_likely.group_by("label").agg(right.alias("recall"))["recall"].mean()
    return isinstance(recall, float) and recall >= _RECALL
