"""The record of a registered version: what made it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.refs import ObjectRef
from cumulant.flows.training.evaluation_record import Judgement
from cumulant.flows.training.fitted import Fitted
from cumulant.ports.registry import ModelVersion
from cumulant.training.spec import EvaluationSpec, TrainingSpec

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: journal rows: what a registered version was made of, by `name/version`
MODEL = "model"
#: a version's tag: the moment of the last row that it learned from
LEARNED_TO = "cumulant.learned_to"


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What made a version, as the journal keeps it: enough to train it again from the recorded snapshots."""

    run: str
    work: str
    servable: ObjectRef
    fitted: Fitted
    judgement: Judgement
    training: TrainingSpec
    evaluation: EvaluationSpec
    snapshots: dict[str, str]
    table: str
    as_of: datetime | None
    sample: float
    #: since when the rows are of another kind, where the training answered a change
    change: datetime | None = None
    #: the user's own trainers, and the digest of each one's code
    trainers: dict[str, str | None] = {}
    #: the table of labels that came from the review queue
    reviewed: str | None = None
    lineage: dict[str, str]
    packages: dict[str, str]
    python: str
    created: datetime


def find_record(project: Project, version: ModelVersion) -> ModelRecord | None:
    """What the journal knows of a version; None for one that was not made here."""
    row = project.journal().get(MODEL, f"{version.name}/{version.version}")
    return None if row is None else msgspec.convert(row.value, ModelRecord)
