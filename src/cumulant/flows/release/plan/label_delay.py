"""Label delay: how long the labels of a project's predictions take to become known."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import expr
from cumulant.core.errors import CumulantError
from cumulant.core.traffic import CHAMPION
from cumulant.flows.features.task import target_of
from cumulant.flows.registry.model_record import MODEL

if TYPE_CHECKING:
    from cumulant.project.project import Project


def find_label_delay(project: Project) -> timedelta | None:
    """As it is declared (`monitoring.performance.label_delay`, or `known_time` of the target as a delay); where it
    stands in a column, the gap that the champion's training left for it. None: unknown.
    """
    declared = project.policies.monitoring.performance.label_delay
    if declared is not None:
        return declared
    known = _of_source(project)
    return _of_champion(project) if known is None else known


def _of_source(project: Project) -> timedelta | None:
    training = project.spec.training
    if training is None:
        return None
    delays = [
        delay
        for known in project.policies.known_delays
        for delay in [known[column] for column in expr.columns(target_of(training, known)) if column in known]
    ]
    return max((delay for delay in delays if delay is not None), default=None)


class _Split(msgspec.Struct, frozen=True):
    train_to: datetime | None = None
    test_from: datetime | None = None


class _Fitted(msgspec.Struct, frozen=True):
    split: _Split


class _Record(msgspec.Struct, frozen=True):
    """Of a `ModelRecord`, whose module imports how versions are trained, what is needed here."""

    fitted: _Fitted


def _of_champion(project: Project) -> timedelta | None:
    try:
        champion = project.registry().resolve(f"{project.name}@{CHAMPION}")
        row = project.journal().get(MODEL, f"{champion.name}/{champion.version}")
    except CumulantError:  # a plan needs no registry
        return None
    split = None if row is None else msgspec.convert(row.value, _Record).fitted.split
    if split is None or split.train_to is None or split.test_from is None:
        return None
    return max(timedelta(), split.test_from - split.train_to)
