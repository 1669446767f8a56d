"""A version as a server describes it, as the flow's own value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.servable import GRAPH_FORMAT, GraphServable, Servable
from cumulant.flows.registry.models import ModelDetail

if TYPE_CHECKING:
    from cumulant.server.operations.models import VersionView


def detail_of(view: VersionView) -> ModelDetail:
    """The version with its manifest of the type that its format names."""
    graph = view.servable["format"] == GRAPH_FORMAT
    servable: Servable | GraphServable = (
        msgspec.convert(view.servable, GraphServable) if graph else msgspec.convert(view.servable, Servable)
    )
    return ModelDetail(
        version=view.version,
        metrics=view.metrics,
        servable=servable,
        measured=view.measured,
        learned=view.learned,
        trainer=view.trainer,
        url=view.url,
    )
