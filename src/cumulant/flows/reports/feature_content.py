"""The features of the version that serves, for a page: what each is, and how fresh what it reads is."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.servable import Servable
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.ledger.actions import verb
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.models import CHAMPION
from cumulant.flows.registry.version_servable import describe_servable
from cumulant.flows.reports import collect
from cumulant.flows.reports.content import FeatureReport, FieldReport
from cumulant.flows.reports.model_content import with_importance
from cumulant.flows.reports.request_example import fields
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

_COMPUTED, _FILLED = "features.computed", "features.state_filled"


class FeatureFreshness(msgspec.Struct, frozen=True, kw_only=True):
    """When something was last made, and how many rows it has."""

    what: str
    at: datetime
    rows: int


class FeatureContent(msgspec.Struct, frozen=True, kw_only=True):
    """The features of `version`, and what a request must carry; `fresh`: sources, the table, the online state."""

    version: ModelVersion
    entity: str
    features: tuple[FeatureReport, ...]
    request: tuple[FieldReport, ...]
    fresh: tuple[FeatureFreshness, ...]


@verb("features.show")
def feature_content(project: Project, *, principal: Principal) -> FeatureContent | None:
    """Of the champion, or of the newest version where there is none; None without a version that reads rows."""
    version = _serving(project)
    described = None if version is None else describe_servable(project, version)
    if version is None or not isinstance(described, Servable):
        return None
    features, record = collect.features(described), find_record(project, version)
    if record is not None:
        features = with_importance(features, record.fitted.summary.importance)
    return FeatureContent(
        version=version,
        entity=described.plan.entity,
        features=features,
        request=tuple(fields(described)),
        fresh=tuple(_freshness(project, sorted(described.plan.sources))),
    )


def _serving(project: Project) -> ModelVersion | None:
    for uri in (f"{project.name}@{CHAMPION}", project.name):
        with suppress(NotFoundError):
            return project.registry().resolve(uri)
    return None


def _freshness(project: Project, sources: list[str]) -> list[FeatureFreshness]:
    fresh = [
        FeatureFreshness(what=f"source {name}", at=snapshot.accepted, rows=snapshot.rows_passed)
        for name in sources
        if (snapshot := newest_snapshot(project, name)) is not None
    ]
    newest: dict[str, Event] = {}
    for event in project.journal().events(kinds=[_COMPUTED, _FILLED]):
        newest[event.kind] = event
    for kind, what in ((_COMPUTED, "feature table"), (_FILLED, "online state")):
        if kind in newest:
            rows = msgspec.convert(newest[kind].data.get("rows", 0), int)
            fresh.append(FeatureFreshness(what=what, at=newest[kind].time, rows=rows))
    return fresh
