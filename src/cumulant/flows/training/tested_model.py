"""The tested model of a version: the configuration that is served, fitted without the test rows.

Under `training.final_fit: all` the model that is served knows all rows. The tested one is kept beside it, so that later
versions can be compared on rows that neither tested model learned from.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cumulant.core.errors import IntegrityError, NotFoundError
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.search_step import load_model

if TYPE_CHECKING:
    from cumulant.flows.registry.model_record import ModelRecord
    from cumulant.flows.training.fitted import SplitSummary
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.model import FittedModel

#: how much shorter the candidate's test may be in time than that of the version that it is compared with
_SHORTER = 0.75


def tested_model(project: Project, version: ModelVersion) -> tuple[FittedModel | None, tuple[str, ...]]:
    """The tested model, and notes; None where the served model is the tested one, where the version was not trained
    here, or with a note where the object is gone or damaged.
    """
    record = find_record(project, version)
    if record is None or record.fitted.final is None:
        return None, ()
    try:
        return load_model(project, record.fitted.model), ()
    except (NotFoundError, IntegrityError) as error:
        why = "is damaged" if isinstance(error, IntegrityError) else "is gone"
        note = f"the object {record.fitted.model.key} {why}, the tested model of {version.uri}: only as it is served"
        return None, (f"{note} can it be compared",)


def candidate_split(project: Project, work: TrainingWork, split: SplitSummary) -> SplitSummary | None:
    """The split of a candidate whose configuration will be fitted on all rows; None where it is served as tested. A
    quick look is never served, and says what a whole training of the project would be compared with.
    """
    spec = project.training() if work.sample < 1 else work.training
    return split if spec.final_fit == "all" else None


def comparable_tested(
    project: Project, version: ModelVersion, candidate: SplitSummary | None
) -> tuple[FittedModel | None, tuple[str, ...]]:
    """The tested model of `version`, where a candidate's tested model may be compared with it, and notes: both are
    fitted on all rows afterwards, and the candidate's lags behind its served model by about as much time as the
    version's. A candidate with a far shorter test would have newer rows on its side that it will not have when both are
    served.
    """
    record = find_record(project, version)
    if candidate is None or record is None or not _equally_late(candidate, record):
        return None, ()
    return tested_model(project, version)


def _equally_late(candidate: SplitSummary, record: ModelRecord) -> bool:
    own, other = _lag(candidate), _lag(record.fitted.split)
    return own is None or other is None or own >= _SHORTER * other


def _lag(split: SplitSummary) -> timedelta | None:
    """From the last row that the tested model learned from to the last row; None without times."""
    if split.train_to is None or split.test_to is None:
        return None
    return split.test_to - split.train_to
