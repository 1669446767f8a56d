"""What the labels of one window say: its loss, and whether that is harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.flows.monitoring.result import enough, passed_of
from cumulant.flows.monitoring.served_log import REF, predictions, refs
from cumulant.flows.monitoring.state import Passed
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.rows import PredictionWindow
from cumulant.monitoring.performance.watch import Harm, LossMonitor, harm
from cumulant.outcomes.join.log_rows import IDENTITY

if TYPE_CHECKING:
    from cumulant.flows.monitoring.served_log import Model
    from cumulant.outcomes.join.prediction_losses import Loss
    from cumulant.project.project import Project
    from cumulant.statistics.rows import Floats

    #: of the labelled rows of a window, what a refit would have said; None where it cannot be asked
    RefitScores = Callable[[PredictionWindow, pl.DataFrame], Floats | None]


def no_scores(_window: PredictionWindow, _known: pl.DataFrame) -> Floats | None:
    """Where no refit is asked."""
    return None


def named(
    project: Project, model: Model, parts: Sequence[tuple[PredictionWindow, pl.DataFrame]]
) -> list[tuple[PredictionWindow, pl.DataFrame]]:
    """Some windows with the references of their labelled rows as REF: the log is read once. Raises StorageError."""
    known = pl.concat([part for _, part in parts]).filter(pl.col("value").is_not_null())
    found = known.select(*IDENTITY, refs(project, model, known).alias(REF))
    return [(window, part.join(found, on=IDENTITY, how="left", maintain_order="left")) for window, part in parts]


def judge_window(
    watch: LossMonitor | None,
    window: PredictionWindow,
    part: pl.DataFrame,
    refit: RefitScores,
    *,
    length: timedelta,
    loss: Loss,
) -> tuple[LossMonitor | None, Harm | None, Passed]:
    """The watch after the window, what it found, and what is kept of the window; `part`: its rows, of
    `served.scored`.
    """
    known = part.filter(pl.col("value").is_not_null())
    one = passed_of(window, part, None)
    if not known.height:
        return watch, None, one
    held = predictions(known, length)
    lost = loss_of(loss, held.truth, held.score)
    one = msgspec.structs.replace(
        one, loss=float(np.average(lost, weights=held.weight)),
        positive=None if held.several else float(np.average(held.truth, weights=held.weight)),
    )  # fmt: skip
    if watch is None or not enough(part):
        return watch, None, one
    scores = refit(window, known)
    if scores is not None:
        there = np.asarray(np.isfinite(scores).reshape(len(scores), -1).all(axis=1))
        held, scores = held.where(there), scores[there]
        again = loss_of(loss, held.truth, scores)
        one = msgspec.structs.replace(one, refit=float(np.average(again, weights=held.weight)))
    watch, found = harm(watch, window, held, scores)
    return watch, found, msgspec.structs.replace(one, word=found.word)
