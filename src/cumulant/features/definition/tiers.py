"""What can compute a feature from the rows as they arrive: every engine, or only one that runs the project's Python.

Features are expressions of a closed set, windows and lookups, which every engine computes. The rows that they read may
be the result of a source's `prepare`, a Python function over tables: such features are of the tier `batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.expr import features as features_of
from cumulant.core.plan import FeaturePlan, FeatureSpec

Tier = Literal["everywhere", "batch"]
#: features that an error names
_NAMED = 5


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is to compute a plan."""

    #: in messages, such as "a stream"
    name: str
    #: it gets rows as `prepare` returns them: whoever sends them has run it, or writes them so
    prepared_rows: bool
    #: it runs Python functions of the project
    python: bool
    #: rows without a key reach it in the order of their source
    ordered: bool


#: feature tables, trainings and batch predictions
BATCH = Target(name="a feature table", prepared_rows=False, python=True, ordered=True)
#: prediction servers: callers send rows, and post rows to sources with a key
SERVER = Target(name="a server", prepared_rows=True, python=False, ordered=True)
#: engines that read the raw events of a source as they arrive
STREAM = Target(name="a stream", prepared_rows=False, python=False, ordered=False)


class FeatureTier(msgspec.Struct, frozen=True, kw_only=True):
    """`functions`: the Python functions, `file.py:function`, whose rows the feature reads."""

    tier: Tier
    functions: tuple[str, ...] = ()


class FeatureRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a target cannot compute a feature; `function`: the Python function that it would have to run."""

    feature: str
    reason: str
    function: str | None = None


def tiers(plan: FeaturePlan, functions: Mapping[str, str]) -> dict[str, FeatureTier]:
    """The tier of every feature, those with a leading underscore too; `functions`: of sources, their `prepare`."""
    sources = _sources_read(plan)
    by_feature: dict[str, FeatureTier] = {}
    for name, read in sources.items():
        run = tuple(dict.fromkeys(functions[source] for source in sorted(read) if source in functions))
        by_feature[name] = FeatureTier(tier="batch" if run else "everywhere", functions=run)
    return by_feature


def refusals(plan: FeaturePlan, functions: Mapping[str, str], target: Target) -> tuple[FeatureRefusal, ...]:
    """What `target` cannot compute of a plan, in the order of the features."""
    refused: list[FeatureRefusal] = []
    by_feature, by_order = tiers(plan, functions), _ordered_sources(plan)
    for spec in plan.features:
        if not target.prepared_rows and not target.python:
            refused += [
                FeatureRefusal(
                    feature=spec.name,
                    reason=f"it reads rows that the Python function {function} returns",
                    function=function,
                )
                for function in by_feature[spec.name].functions
            ]
        for source in () if target.ordered else sorted(by_order[spec.name]):
            reason = f"it takes the last of rows of {source}, which have no key that orders rows of one moment"
            refused.append(FeatureRefusal(feature=spec.name, reason=reason))
    return tuple(refused)


def require_target(plan: FeaturePlan, functions: Mapping[str, str], target: Target) -> None:
    """Refuse a plan that `target` cannot compute.

    Raises:
        DefinitionError: names the features, and the functions that they need.
    """
    refused = refusals(plan, functions, target)
    if not refused:
        return
    first = refused[0]
    alike = list(dict.fromkeys(each.feature for each in refused if each.reason == first.reason))
    others = [name for name in alike if name in plan.names] or alike
    named = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    raise DefinitionError(
        f"{target.name} cannot compute {named}: {first.reason}",
        subject=others[0],
        hint="declare a `key` of the source"
        if first.function is None
        else "write what it computes as expressions in the features file, or deliver rows as it returns them",
    )


def _sources_read(plan: FeaturePlan) -> dict[str, set[str]]:
    """The sources whose rows each feature reads; keys and moments are of the row itself, so the entity is one."""

    def own(spec: FeatureSpec) -> set[str]:
        measure = spec.window or spec.lookup
        return {plan.entity} if measure is None else {plan.entity, measure.source}

    return _with_parts(plan, own)


def _ordered_sources(plan: FeaturePlan) -> dict[str, set[str]]:
    """Of each feature the sources without a key whose order decides between rows of one moment."""

    def own(spec: FeatureSpec) -> set[str]:
        measure = spec.window or spec.lookup
        takes_last = spec.lookup is not None or (spec.window is not None and spec.window.agg == "last")
        return (
            {measure.source} if takes_last and measure is not None and not plan.sources[measure.source].key else set()
        )

    return _with_parts(plan, own)


def _with_parts(plan: FeaturePlan, own: Callable[[FeatureSpec], set[str]]) -> dict[str, set[str]]:
    """Of each feature what `own` gives of it and of the features that it reads."""
    of: dict[str, set[str]] = {}
    for spec in plan.features:  # in dependency order
        parts = () if spec.expr is None else features_of(spec.expr)
        of[spec.name] = own(spec).union(*(of[part] for part in parts))
    return of
