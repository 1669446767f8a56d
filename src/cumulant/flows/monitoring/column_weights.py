"""Weights of the request columns, from the importance of the features that read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cumulant.core import expr
from cumulant.monitoring.tables import asked_name

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan, FeatureSpec

#: what a column counts that the model hardly reads, where the mean is 1: a fault of its source shows all the same
LEAST = 0.1


def weights_of(plan: FeaturePlan, importance: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Weights of the columns of a request, with a mean of 1 before what is below LEAST is lifted to it, and those that
    no feature with any importance reads.

    A column's is the sum of the importances of the features that read it, themselves or through other features. Where
    the model tells no importance there are no weights.
    """
    whole = sum(importance.values())
    if whole <= 0 or not plan.request:
        return {}, ()
    read: dict[str, frozenset[str]] = {}
    for spec in plan.features:  # in dependency order
        read[spec.name] = _columns(spec, plan).union(*(read.get(name, frozenset()) for name in _others(spec)))
    sums = dict.fromkeys((field.name for field in plan.request), 0.0)
    used: set[str] = set()
    for name, value in importance.items():
        for column in read.get(name, frozenset()) & sums.keys():
            sums[column] += value
            used |= {column} if value > 0 else set()
    mean = sum(sums.values()) / len(sums)
    if mean <= 0:
        return {}, ()
    weights = {asked_name(name): max(value / mean, LEAST) for name, value in sums.items()}
    return weights, tuple(asked_name(name) for name in sums if name not in used)


def _others(spec: FeatureSpec) -> frozenset[str]:
    return frozenset() if spec.expr is None else expr.features(spec.expr)


def _columns(spec: FeatureSpec, plan: FeaturePlan) -> frozenset[str]:
    """Columns of the row that a feature reads: in its expression, as a key, or as what later rows see of it."""
    if spec.expr is not None:
        return expr.columns(spec.expr)
    measure = spec.window or spec.lookup
    if measure is None:
        return frozenset()
    columns = frozenset(measure.by)
    if measure.source != plan.entity:
        return columns
    if spec.lookup is not None:
        return columns | {spec.lookup.column}
    return columns | (expr.columns(spec.window.value) if spec.window is not None and spec.window.value else frozenset())
