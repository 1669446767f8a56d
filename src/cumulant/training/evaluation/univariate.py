"""How well one feature alone tells the target: a copy or a later amount does so, an honest feature seldom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.servable import Task

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

#: rows of a class, and rows with a value, below which shares are chance
_LEAST = 10
#: a value that is this many times as frequent in one class as it can be in the others ...
_RATIO = 20.0
#: ... and holds at least this part of the class
_PART = 0.1
#: values of a feature that are looked at one by one: the most frequent
_VALUES = 8
#: a value that is missing, and one that is not
_MISSING = ("a missing value", "any value at all")
_BINS = 64
_ROWS_PER_BIN = 25


@dataclass(frozen=True, kw_only=True)
class Strength:
    """auc: the largest area under the ROC curve of one class against the others, by the order of the feature or by the
    share of the class among its values, which is learned on other rows; of numbers the concordance, which is the same
    for pairs of rows: the probability that the feature puts two of them in their order.
    value: what comes with one class all but alone, in words; or empty.
    """

    auc: float
    value: str = ""


def strength(feature: pl.Series, target: Floats, task: Task, *, seed: int = 0) -> Strength:
    """How well `feature` [n] alone tells `target` [n]; 0.5 where it tells nothing."""
    codes, names = _coded(feature)
    numbers = _numbers(feature)
    generator = np.random.default_rng(seed)
    half = generator.permutation(len(target)) % 2 == 0
    if task == "regression":
        return Strength(auc=_concordance(numbers, codes, target, half))
    best, value = 0.5, ""
    classes = np.unique(target)
    for class_ in classes[-1:] if len(classes) == 2 else classes:
        truth = target == class_
        if min(truth.sum(), (~truth).sum()) < _LEAST:
            continue
        best = max(best, _auc_of_class(numbers, codes, truth, half))
        value = value or _telling_value(codes, names, truth)
    return Strength(auc=best, value=value)


def auc(score: Floats, truth: NDArray[np.bool_]) -> float:
    """The area under the ROC curve; ties count a half."""
    from scipy.stats import rankdata

    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return 0.5
    ranks = float(rankdata(score)[truth].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def _auc_of_class(numbers: Floats | None, codes: Codes, truth: NDArray[np.bool_], half: NDArray[np.bool_]) -> float:
    areas = [_learned_auc(codes, truth, half)]
    if numbers is not None:
        for missing in (-np.inf, np.inf):  # missing values are the lowest or the highest
            area = auc(np.where(np.isnan(numbers), missing, numbers), truth)
            areas += [area, 1 - area]
    return max(areas)


def _learned_auc(codes: Codes, truth: NDArray[np.bool_], half: NDArray[np.bool_]) -> float:
    """The mean area over both halves, each scored by the shares of the class in the other."""
    areas = []
    for part in (half, ~half):
        scores = _shares(codes, truth[~part].astype(np.float64), ~part)[codes[part]]
        areas.append(auc(scores, truth[part]))
    return float(np.mean(areas))


def _shares(codes: Codes, values: Floats, part: NDArray[np.bool_]) -> Floats:
    """[values] the mean of `values` of the rows of `part` at each code, drawn a little to the mean of all."""
    size = int(codes.max()) + 1
    counts, sums = np.bincount(codes[part], minlength=size), np.bincount(codes[part], values, minlength=size)
    shares: Floats = (sums + values.mean()) / (counts + 1)
    return shares


def _concordance(numbers: Floats | None, codes: Codes, target: Floats, half: NDArray[np.bool_]) -> float:
    """By Kendall's tau of the feature, or of the mean of the target at its values, learned on the other half."""
    from scipy.stats import kendalltau

    taus = [0.0]
    if numbers is not None:
        present = ~np.isnan(numbers)
        if present.sum() >= max(_LEAST, len(numbers) / 2) and np.ptp(numbers[present]) and np.ptp(target[present]):
            taus.append(abs(float(kendalltau(numbers[present], target[present]).statistic)))
    else:
        parts = [
            kendalltau(_shares(codes, target[~part], ~part)[codes[part]], target[part]).statistic
            for part in (half, ~half)
        ]
        taus.append(float(np.nan_to_num(np.mean(parts))))
    return (1 + max(taus)) / 2


def _telling_value(codes: Codes, names: tuple[str, ...], truth: NDArray[np.bool_]) -> str:
    """A value, or all others, that holds a tenth of one class and is 20 times as rare in the others."""
    counts = np.bincount(codes, minlength=len(names))
    for code in np.argsort(-counts, kind="stable")[:_VALUES]:
        has_value, name = codes == code, names[int(code)]
        if name and _comes_with_one_class(has_value, truth):
            return _MISSING[0] if name == "missing" else name
        if name and _comes_with_one_class(~has_value, truth):
            return _MISSING[1] if name == "missing" else f"any value but {name}"
    return ""


def _comes_with_one_class(has_value: NDArray[np.bool_], truth: NDArray[np.bool_]) -> bool:
    ours, others = int((has_value & truth).sum()), int((has_value & ~truth).sum())
    sizes = int(truth.sum()), int((~truth).sum())
    return _rare_elsewhere(ours, sizes[0], others, sizes[1]) or _rare_elsewhere(others, sizes[1], ours, sizes[0])


def _rare_elsewhere(ours: int, size: int, others: int, other_size: int) -> bool:
    """By the exact upper 95% limit of the share elsewhere (Clopper and Pearson, 1934)."""
    from scipy.stats import beta

    if ours < max(_PART * size, _LEAST):
        return False
    elsewhere = 1.0 if others == other_size else float(beta.ppf(0.95, others + 1, other_size - others))
    return ours / size > _RATIO * elsewhere


def _named(value: float | str) -> str:
    """What a message may call a value: others than 0 and 1 may be somebody's."""
    return f"the value {value:g}" if value in (0.0, 1.0) else "one frequent value"


def _numbers(feature: pl.Series) -> Floats | None:
    if not (feature.dtype.is_numeric() or feature.dtype == pl.Boolean):
        return None
    values = np.asarray(feature.cast(pl.Float64).fill_null(np.nan).to_numpy(), dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _coded(feature: pl.Series) -> tuple[Codes, tuple[str, ...]]:
    """[n] a code of each value, missing being one, and what each code is in words; numbers with many values in bins,
    which have no words, but for values that are frequent.
    """
    numbers = _numbers(feature)
    if numbers is None:
        return _codes_of(feature.cast(pl.String))
    values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    bins = max(2, min(_BINS, len(numbers) // _ROWS_PER_BIN))
    if len(values) <= bins:
        return _codes_of(pl.Series(numbers, dtype=pl.Float64).fill_nan(None))
    frequent = values[counts >= max(_LEAST, len(numbers) / bins)]
    edges = np.quantile(numbers[~np.isnan(numbers)], np.linspace(0, 1, bins + 1)[1:-1])
    codes = np.searchsorted(np.unique(edges), numbers, side="right")
    names = [""] * (len(edges) + 2)
    for value in frequent:
        codes[numbers == value] = len(names)
        names.append(_named(float(value)))
    codes[np.isnan(numbers)] = len(names)
    return codes.astype(np.int64), (*names, "missing")


def _codes_of(values: pl.Series) -> tuple[Codes, tuple[str, ...]]:
    distinct = values.drop_nulls().unique().sort()
    texts = [_named(value) for value in distinct]
    codes = values.replace_strict(distinct, range(len(distinct)), default=None, return_dtype=pl.Int64)
    return np.asarray(codes.fill_null(len(distinct)).to_numpy(), dtype=np.int64), (*texts, "missing")
