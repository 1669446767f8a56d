"""Which test rows a version did not learn from: figures over rows that a model learned are too good."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.core.units import moment, to_micros
from cumulant.flows.registry.model_record import LEARNED_TO, find_record
from cumulant.flows.training.split_rule import unlearned_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.registry.model_record import ModelRecord
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.registry import ModelVersion
    from cumulant.training.dataset import TrainingSet

#: fewer rows decide nothing
LEAST_UNSEEN = 30


def unseen_rows(
    context: Context, work: TrainingWork, test: TrainingSet, version: ModelVersion, *, tested: bool = False
) -> tuple[NDArray[np.bool_] | None, str]:
    """[n] the test rows that the served model of the version did not learn from, or its `tested` model: those after the
    last training row, or without times those that its own split kept from it. None where that is not known, and why.
    """
    record = find_record(context.project, version)
    split = None if record is None else record.fitted.split
    last = split.train_to if tested and split is not None else _learned_to(record, version)
    if test.at is not None and last is not None:
        return test.at > to_micros(last), ""
    if record is not None and record.fitted.final is not None and not tested:
        return None, f"{version.uri} learned from all rows that there were, and rows have no time by which to know them"
    if split is None or split.rule is None:
        return None, f"it is not known which rows {version.uri} learned from"
    kept_apart = unlearned_rows(split.rule, context.project, work)
    if kept_apart is None:
        return None, f"the rows that {version.uri} learned from are not recognised among those of today"
    return kept_apart[test.rows], ""


def _learned_to(record: ModelRecord | None, version: ModelVersion) -> datetime | None:
    """The moment of its last training row; of a version without a record, what its tag says."""
    if record is not None:
        return record.fitted.learned_to
    text = version.tags.get(LEARNED_TO)
    return None if text is None else moment(text)
