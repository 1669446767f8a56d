"""Which features show values of personal columns."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.core import expr
from cumulant.core.plan import FeaturePlan, FeatureSpec

#: of a window: figures about values that do not repeat one of them
_FIGURES = ("count", "distinct")


def personal_features(plan: FeaturePlan) -> frozenset[str]:
    """Features of personal columns' values, other than windows keyed by one."""
    columns = {name: {field.name for field in source.fields if field.personal} for name, source in plan.sources.items()}
    names: set[str] = set()
    for spec in plan.features:
        if _is_personal(spec, columns, plan.entity, names):
            names.add(spec.name)
    return frozenset(names)


def stored_features(plan: FeaturePlan) -> tuple[str, ...]:
    """The features that read stored events, also by way of others, and show no personal value, in order."""
    stored, personal = set[str](), personal_features(plan)
    for spec in plan.features:
        if spec.expr is None or expr.features(spec.expr) & stored:
            stored.add(spec.name)
    return tuple(name for name in plan.names if name in stored and name not in personal)


def _is_personal(spec: FeatureSpec, columns: Mapping[str, set[str]], entity: str, known: set[str]) -> bool:
    """`columns`: the personal ones of each source; `known`: the personal features before this one."""
    if spec.expr is not None:
        return bool(expr.columns(spec.expr) & columns[entity] or expr.features(spec.expr) & known)
    if spec.lookup is not None:
        return spec.lookup.column in columns[spec.lookup.source]
    if spec.window is None or spec.window.value is None or spec.window.agg in _FIGURES:
        return False
    return bool(expr.columns(spec.window.value) & columns[spec.window.source])
