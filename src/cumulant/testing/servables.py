"""A small servable for tests of what stores it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.expr import Column
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, Source
from cumulant.core.servable import Input
from cumulant.packaging.builder import build
from cumulant.training.model import constant

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS = (Field("distance", "float"),)
_PLAN = FeaturePlan(
    entity="flights",
    predict_at=None,
    sources={"flights": Source("flights", (), None, _FIELDS)},
    features=(FeatureSpec("distance", "float", expr=Column("distance")),),
    request=_FIELDS,
)


def build_servable(folder: Path) -> Path:
    """A model of one number, `distance`, that answers the same to all."""
    model = constant([0.25], task="binary", classes=("false", "true"), inputs=(Input("distance", "number"),))
    out = folder / "servable"
    build(model, _PLAN, name="flight-late", sample={"distance": [1.0, None]}, out=out, lineage={}, example={})
    return out
