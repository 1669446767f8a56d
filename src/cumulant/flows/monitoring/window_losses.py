"""The loss of one window by its labels, and whether it is harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.flows.monitoring.result import enough, window_record
from cumulant.flows.monitoring.served_log import REF, predictions, row_references
from cumulant.flows.monitoring.state import WindowRecord
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.rows import PredictionWindow
from cumulant.monitoring.performance.watch import Harm, LossMonitor, harm
from cumulant.outcomes.join.log_rows import IDENTITY

if TYPE_CHECKING:
    from cumulant.flows.monitoring.served_log import ServedModel
    from cumulant.outcomes.join.prediction_losses import Loss
    from cumulant.project.project import Project
    from cumulant.statistics.rows import Floats

    #: of the labelled rows of a window, what a refit would have said; None where it cannot be asked
    RefitScores = Callable[[PredictionWindow, pl.DataFrame], Floats | None]


def no_scores(_window: PredictionWindow, _known: pl.DataFrame) -> Floats | None:
    """Where no refit is asked."""
    return None


def add_references(
    project: Project, model: ServedModel, parts: Sequence[tuple[PredictionWindow, pl.DataFrame]]
) -> list[tuple[PredictionWindow, pl.DataFrame]]:
    """Some windows with the references of their labelled rows as REF: the log is read once. Raises StorageError."""
    known = pl.concat([part for _, part in parts]).filter(pl.col("value").is_not_null())
    references = known.select(*IDENTITY, row_references(project, model, known).alias(REF))
    return [(window, part.join(references, on=IDENTITY, how="left", maintain_order="left")) for window, part in parts]


def evaluate_window(
    watch: LossMonitor | None,
    window: PredictionWindow,
    part: pl.DataFrame,
    refit: RefitScores,
    *,
    length: timedelta,
    loss: Loss,
) -> tuple[LossMonitor | None, Harm | None, WindowRecord]:
    """The watch after the window, what it found, and what is kept of the window; `part`: its rows, of
    `served_log`.
    """
    known = part.filter(pl.col("value").is_not_null())
    record = window_record(window, part, None)
    if not known.height:
        return watch, None, record
    answered = predictions(known, length)
    lost = loss_of(loss, answered.truth, answered.score)
    record = msgspec.structs.replace(
        record,
        loss=float(np.average(lost, weights=answered.weight)),
        positive=None if answered.several else float(np.average(answered.truth, weights=answered.weight)),
    )
    if watch is None or not enough(part):
        return watch, None, record
    scores = refit(window, known)
    if scores is not None:
        there = np.asarray(np.isfinite(scores).reshape(len(scores), -1).all(axis=1))
        answered, scores = answered.where(there), scores[there]
        again = loss_of(loss, answered.truth, scores)
        record = msgspec.structs.replace(record, refit=float(np.average(again, weights=answered.weight)))
    watch, window_harm = harm(watch, window, answered, scores)
    return watch, window_harm, msgspec.structs.replace(record, word=window_harm.word)
