"""What can compute a feature from the rows as they arrive: every engine, or only one that runs the project's Python.

Features are expressions of a closed set, windows and lookups, which every engine computes. The rows that they read may
be the result of a source's `prepare`, a Python function over tables: such features are of the tier `batch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cumulant.core.expr import features as features_of
from cumulant.core.plan import FeaturePlan

Tier = Literal["everywhere", "batch"]


class FeatureTier(msgspec.Struct, frozen=True, kw_only=True):
    """`functions`: the Python functions, `file.py:function`, whose rows the feature reads."""

    tier: Tier
    functions: tuple[str, ...] = ()


def tiers(plan: FeaturePlan, functions: Mapping[str, str]) -> dict[str, FeatureTier]:
    """The tier of every feature, those with a leading underscore too; `functions`: of sources, their `prepare`."""
    sources = _sources_read(plan)
    by_feature: dict[str, FeatureTier] = {}
    for name, read in sources.items():
        run = tuple(dict.fromkeys(functions[source] for source in sorted(read) if source in functions))
        by_feature[name] = FeatureTier(tier="batch" if run else "everywhere", functions=run)
    return by_feature


def _sources_read(plan: FeaturePlan) -> dict[str, set[str]]:
    """The sources whose rows each feature reads, itself or by the features that it reads; keys and moments are of the
    row itself, so the entity is one.
    """
    of: dict[str, set[str]] = {}
    for spec in plan.features:  # in dependency order
        measure = spec.window or spec.lookup
        own = {plan.entity} if measure is None else {plan.entity, measure.source}
        parts = () if spec.expr is None else features_of(spec.expr)
        of[spec.name] = own.union(*(of[part] for part in parts))
    return of
