"""Personal values on their way into a model, its examples and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cumulant.core import expr

if TYPE_CHECKING:
    import polars as pl

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


def personal_texts(plan: FeaturePlan) -> tuple[str, ...]:
    """Those of them that are text. No model reads these: it would have to carry their values as its categories."""
    names = personal_features(plan)
    return tuple(spec.name for spec in plan.features if spec.name in names and spec.dtype == "str")


def mask_personal(frame: pl.DataFrame, personal: frozenset[str], salt: bytes) -> pl.DataFrame:
    """`frame` for an example: personal texts as keyed hashes, other personal values missing, so that types stay."""
    import polars as pl

    from cumulant.data.masking import mask_frame

    names = [name for name in frame.columns if name in personal]
    texts = [name for name in names if frame[name].dtype == pl.String]
    others = (pl.lit(None, frame[name].dtype).alias(name) for name in names if name not in texts)
    return mask_frame(frame, texts, salt).with_columns(others)


def _is_personal(spec: FeatureSpec, columns: Mapping[str, set[str]], entity: str, known: set[str]) -> bool:
    """`columns`: the personal ones of each source; `known`: the personal features before this one."""
    if spec.expr is not None:
        return bool(expr.columns(spec.expr) & columns[entity] or expr.features(spec.expr) & known)
    if spec.lookup is not None:
        return spec.lookup.column in columns[spec.lookup.source]
    if spec.window is None or spec.window.value is None or spec.window.agg in _FIGURES:
        return False
    return bool(expr.columns(spec.window.value) & columns[spec.window.source])
