"""Features that give the target away: what training can tell before it is fooled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.core.servable import Task
from cumulant.training.policy import TrainingPolicy

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
#: rows that determine the target exactly or not, and rows that show how nearly
_SAMPLE, _FEW = 20_000, 6_000
#: fewer rows (or rarer classes) agree by chance
_LEAST_ROWS, _LEAST_OF_A_CLASS = 50, 10
#: a text column with fewer rows a value than this could name its rows
_ROWS_PER_VALUE = 5


def check_leakage(
    features: pl.DataFrame, target: NDArray[np.float64], task: Task, *, spec: TrainingPolicy
) -> tuple[str, ...]:
    """Refuse a feature that alone determines the target; name those that nearly do, all in one warning.

    Classes: a feature leaks where each of its values (missing is one) holds a single class and its order needs
    one cut for each change of class: `x > 3` is the target, or the text says it. Numbers: where the feature's
    order is the target's order (Spearman correlation of 1). Looked for in at most 20,000 rows first, then in all.
    Named are features with an area under the ROC curve of `training.leak_auc` or more, and those with a value that
    comes with one class all but alone: noisy copies, and what is filled in after the event.

    Raises:
        DataError: a feature leaks and is not under `training.allow`.
    """
    if len(target) < _LEAST_ROWS or (task != "regression" and _rarest(target) < _LEAST_OF_A_CLASS):
        return ()
    sample, few = _sample(target, task, _SAMPLE), _sample(target, task, _FEW)
    suspicious = dict[str, str]()
    # Of all columns at once: a call for each one costs more than its work, and there may be thousands.
    values = features.select(pl.all().n_unique()).row(0)
    sampled, fewer = (features if len(rows) == features.height else features[rows] for rows in (sample, few))
    for name, count in zip(features.columns, values, strict=True):
        if count == 1:
            continue  # one value for all rows is no sign of anything
        strength = _strength(sampled[name], target[sample], task)
        if strength >= 1.0:
            strength = _strength(features[name], target, task)
        if strength >= 1.0 and name not in spec.allow:
            raise DataError(
                f"the feature {name} determines the target {spec.target} in every row: this is leakage",
                subject=name,
                hint=f"remove it from the features, declare when it becomes known, or allow it: `allow: [{name}]`",
            )
        if name not in spec.allow and (reason := _suspicion(fewer[name], target[few], task, spec.leak_auc)):
            suspicious[name] = reason
    return _warnings(suspicious)


def _suspicion(feature: pl.Series, target: NDArray[np.float64], task: Task, limit: float) -> str:
    """In what a feature is better than honest ones are; empty where it is not."""
    alone = strength(feature, target, task)
    if alone.auc >= limit:
        figure = "a concordance" if task == "regression" else "an AUC"
        return f"{figure} of {alone.auc:.3f}, with training.leak_auc: {limit:g}"
    return f"{alone.value} comes with one class all but alone" if alone.value else ""


def _warnings(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """One warning for all features, with the line that allows them."""
    allow = f"`allow: [{', '.join(reasons)}]`"
    if len(reasons) > 1:
        listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        summary = f"each of {len(reasons)} features alone determines the target nearly always: {listed}"
        return (f"{summary}: check when they are known, or allow them: {allow}",)
    return tuple(
        f"{name} alone determines the target nearly always ({reason}): check when it is known, or allow it: {allow}"
        for name, reason in reasons.items()
    )


def _rarest(target: NDArray[np.float64]) -> int:
    return int(np.unique(target, return_counts=True)[1].min())


def _sample(target: NDArray[np.float64], task: Task, most: int) -> NDArray[Any]:
    """Positions of at most `most` rows; of each class at least a few."""
    if len(target) <= most:
        return np.arange(len(target))
    generator = np.random.default_rng(0)
    if task == "regression":
        return generator.choice(len(target), size=most, replace=False)
    values = np.unique(target)
    places = [np.flatnonzero(target == value) for value in values]
    return np.concatenate([generator.permutation(place)[: most // len(values)] for place in places])


def _strength(feature: pl.Series, target: NDArray[np.float64], task: Task) -> float:
    """1 where the feature determines the target, else how nearly it does, from 0."""
    if feature.dtype.is_numeric() or feature.dtype == pl.Boolean:
        values = np.asarray(feature.cast(pl.Float64).to_numpy(), dtype=np.float64)  # a missing one is NaN
        return _rank_strength(values, target) if task == "regression" else _ordered_purity(values, target)
    codes = np.asarray(feature.cast(pl.String).fill_null("").rank("dense").to_numpy(), dtype=np.int64)
    if int(codes.max()) * _ROWS_PER_VALUE > len(codes):
        return 0.0
    return _spread_told(codes, target) if task == "regression" else _purity(codes, target)


def _rank_strength(values: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    from scipy.stats import rankdata

    present = ~np.isnan(values)
    if (
        present.sum() < max(_LEAST_ROWS, len(values) / 2)
        or np.ptp(values[present]) == 0
        or np.ptp(target[present]) == 0
    ):
        return 0.0
    first, second = rankdata(values[present]), rankdata(target[present])
    strength = abs(float(np.corrcoef(first, second)[0, 1]))
    return 1.0 if strength > 1 - 1e-9 else min(strength, 1 - 1e-9)


def _ordered_purity(values: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """The share of rows classified right when the sorted feature is cut once for each change of class."""
    classes = len(np.unique(target))
    order = np.lexsort((target, values))  # missing values sort last: a value of their own
    sorted_values, sorted_target = values[order], target[order]
    changed = (sorted_values[1:] != sorted_values[:-1]) & ~(np.isnan(sorted_values[1:]) & np.isnan(sorted_values[:-1]))
    value = np.cumsum(np.r_[False, changed])
    count = int(value[-1]) + 1
    if count == 1:
        return 0.0
    mixed = np.flatnonzero(sorted_target[1:] != sorted_target[:-1])
    pure = not bool((~changed[mixed]).any())
    # `classes - 1` cuts, and one more so that missing values may be a class of their own
    if pure and len(mixed) <= classes:
        return 1.0
    return _best_cut(sorted_target, value) if classes == 2 else 0.0


def _best_cut(sorted_target: NDArray[np.float64], value: NDArray[Any]) -> float:
    """The largest share of balanced rows classified right by one cut between values."""
    ends = np.flatnonzero(np.r_[value[1:] != value[:-1], True])
    positives = np.cumsum(sorted_target)[ends] / max(float(sorted_target.sum()), 1.0)
    negatives = np.cumsum(1 - sorted_target)[ends] / max(float((1 - sorted_target).sum()), 1.0)
    return min(float((1 + np.abs(positives - negatives).max()) / 2), 1 - 1e-9)


def _purity(codes: NDArray[np.int64], target: NDArray[np.float64]) -> float:
    """The share of rows, over classes evenly, of the likeliest class of their value."""
    classes, place = np.unique(target, return_inverse=True)
    table = np.zeros((int(codes.max()) + 1, len(classes)))
    np.add.at(table, (codes, place), 1)
    best: NDArray[np.float64] = table.max(axis=1)
    return float(best.sum() / table.sum()) if bool((best == table.sum(axis=1)).all()) else _balanced(table)


def _balanced(table: NDArray[np.float64]) -> float:
    shares = table / table.sum(axis=0, keepdims=True)
    best_shares = np.zeros_like(shares)
    best = shares.argmax(axis=1)
    best_shares[np.arange(len(shares)), best] = shares[np.arange(len(shares)), best]
    return min(float(best_shares.sum() / shares.shape[1]), 1 - 1e-9)


def _spread_told(codes: NDArray[np.int64], target: NDArray[np.float64]) -> float:
    """The share of the target's variance between the values of a text column."""
    counts = np.bincount(codes)
    means = np.bincount(codes, target) / np.maximum(counts, 1)
    total = float(((target - target.mean()) ** 2).sum())
    within = float(((target - means[codes]) ** 2).sum())
    return 1.0 if within <= 1e-12 * total else min(1 - within / total, 1 - 1e-9)


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
    numbers = _numbers(feature)
    codes, names = _coded(feature, numbers)
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
        absent = np.isnan(numbers)
        for missing in (-np.inf, np.inf) if absent.any() else (0.0,):  # missing values are the lowest or the highest
            area = auc(np.where(absent, missing, numbers), truth)
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
    values = np.asarray(feature.cast(pl.Float64).to_numpy(), dtype=np.float64)  # a missing one is NaN
    return np.where(np.isfinite(values), values, np.nan)


def _coded(feature: pl.Series, numbers: Floats | None) -> tuple[Codes, tuple[str, ...]]:
    """[n] a code of each value, missing being one, and what each code is in words; numbers with many values in bins,
    which have no words, but for values that are frequent.
    """
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
