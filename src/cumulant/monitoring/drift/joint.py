"""Joint comparison of all columns: a classifier, tested on other blocks, separates a window from the reference."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl

from cumulant.monitoring.drift.categories import text
from cumulant.monitoring.drift.profiles import ColumnCells, DriftProfile
from cumulant.statistics import METRICS, Rows, cluster_codes, estimate, roc_auc
from cumulant.statistics.rows import Codes, Flags, Floats

#: most and least rows of each side
MOST, FEWEST = 20_000, 200
_PERMUTED, _TREES, _LEAVES, _VALUES = 2, 40, 15, 50


class Telling(msgspec.Struct, frozen=True):
    """A column, and by how much the area falls when its values are shuffled."""

    feature: str
    part: float


class Joint(msgspec.Struct, frozen=True, kw_only=True):
    """Area under the ROC curve on held-out rows with its 95% interval over blocks: 0.5 no, 1 full separation.

    `by`: the columns that separate, most important first.
    """

    area: float
    low: float | None
    high: float | None
    rows: int
    by: tuple[Telling, ...]


def jointly(
    before: pl.DataFrame,
    now: pl.DataFrame,
    reference: DriftProfile,
    *,
    blocks: tuple[Codes, Codes] | None = None,
    seed: int = 0,
) -> Joint | None:
    """Separate `now` from `before` by the common features of `reference`; None where there are too few rows.

    `blocks`: the block of each row of both frames; without them each row is its own. At most MOST rows of each side,
    drawn at random; a gradient-boosted ensemble (scikit-learn's) with 40 trees of 15 leaves, on one core.
    """
    both = {*before.columns} & {*now.columns}
    features = [column for column in reference.columns if column.role == "feature" and column.name in both]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if min(before.height, now.height) < FEWEST or not features:
        return None
    generator = np.random.default_rng(seed)
    sides = [_drawn(frame, generator) for frame in (before, now)]
    values = np.column_stack(
        [
            np.concatenate(
                [
                    _encoded(frame[column.name].gather(rows), column.cells)
                    for frame, rows in zip((before, now), sides, strict=True)
                ]
            )
            for column in features
        ]
    )
    truth = np.repeat([0.0, 1.0], [len(rows) for rows in sides])
    cluster = _clusters(sides, blocks)
    learned = _half(cluster, truth, generator)
    judged = ~learned
    with threadpool_limits(1, user_api="openmp"):  # small trees: threads would wait for each other
        model = _model(seed).fit(values[learned], truth[learned])
        score = model.predict_proba(values[judged])[:, 1]
    judged_rows = Rows(truth=truth[judged], prediction=score, cluster=cluster_codes(cluster[judged]))
    area = estimate(METRICS["roc_auc"], judged_rows, resamples=200, seed=seed)
    if area.value is None:
        return None
    with threadpool_limits(1, user_api="openmp"):
        falls = _parts(model, values[judged], judged_rows, area.value, generator)
    order = np.argsort(-falls)[:5]
    by = tuple(Telling(features[place].name, float(falls[place])) for place in order if falls[place] > 0)
    return Joint(area=area.value, low=area.low, high=area.high, rows=len(judged_rows), by=by)


def _drawn(frame: pl.DataFrame, generator: np.random.Generator) -> Codes:
    rows: Codes = np.sort(generator.choice(frame.height, min(MOST, frame.height), replace=False))
    return rows


def _encoded(series: pl.Series, cells: ColumnCells) -> Floats:
    """Numbers as they are and categories by their place in the reference's order; what has no value is NaN."""
    if cells.kind == "number":
        return series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    values = cells.values[:_VALUES]
    places = text(series).replace_strict(values, range(len(values)), default=len(values), return_dtype=pl.Float64)
    codes: Floats = np.where(series.is_null().to_numpy(), np.nan, places.to_numpy())
    return codes


def _clusters(sides: list[Codes], blocks: tuple[Codes, Codes] | None) -> Codes:
    if blocks is None:
        return np.arange(sum(len(rows) for rows in sides), dtype=np.int64)
    before, now = (codes[rows] for codes, rows in zip(blocks, sides, strict=True))
    return np.concatenate([before, now + int(before.max()) + 1]).astype(np.int64)


def _half(cluster: Codes, truth: Floats, generator: np.random.Generator) -> Flags:
    """Rows to learn from: half of the blocks of each side; half of its rows where a side has one block."""
    learned = np.zeros(len(truth), dtype=np.bool_)
    for side in (0.0, 1.0):
        rows = np.flatnonzero(truth == side)
        own = np.unique(cluster[rows])
        if len(own) > 1:
            learned[rows] = np.isin(cluster[rows], generator.permutation(own)[: len(own) // 2])
        else:
            learned[generator.permutation(rows)[: len(rows) // 2]] = True
    return learned


def _parts(model: Any, values: Floats, judged_rows: Rows, area: float, generator: np.random.Generator) -> Floats:
    """The fall of the area when a column is shuffled (Breiman 2001)."""
    falls = np.zeros(values.shape[1])
    for place in range(values.shape[1]):
        for _ in range(_PERMUTED):
            shuffled = values.copy()
            shuffled[:, place] = generator.permutation(shuffled[:, place])
            again = model.predict_proba(shuffled)[:, 1]
            falls[place] += (area - roc_auc(judged_rows.truth, again)) / _PERMUTED
    return falls


def _model(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=_TREES, max_leaf_nodes=_LEAVES, early_stopping=False, class_weight="balanced", random_state=seed
    )
