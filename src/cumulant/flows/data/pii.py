"""Personal values on their way into a model, its examples and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.features.definition.personal_features import personal_features

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan


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
