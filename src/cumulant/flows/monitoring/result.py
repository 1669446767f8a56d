"""The result of an evaluation of a served version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from cumulant.flows.monitoring.late_labels import LateRows
from cumulant.flows.monitoring.state import WindowRecord
from cumulant.monitoring.performance.labelled import LEAST_SHARE
from cumulant.monitoring.performance.loss_monitor import Harm
from cumulant.monitoring.performance.rows import PredictionWindow
from cumulant.monitoring.performance.unlabelled import EstimatedFigure
from cumulant.monitoring.retrain_rule import RetrainAction
from cumulant.statistics.performance.audit import Audit, audit

if TYPE_CHECKING:
    from cumulant.monitoring.drift.findings import DriftFinding

#: over how many of the newest windows a loss is estimated
SPAN = 7


#: fewer labels do not evaluate a window
_LEAST = 10


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result for the served version. `fresh`: how many of the windows were evaluated now.

    harm: after the newest evaluated window. estimate: of the newest windows. audit: of estimates by later labels.
    estimates: of classes all metrics of the newest windows; estimate_refused: why there are none. outcomes: changes of
    the labels' mix. fault: why the newest data were refused. notes: what could not be evaluated. late: rows and labels
    after their window's evaluation.
    """

    model: str
    version: str
    at: datetime
    until: datetime
    fresh: int
    windows: tuple[WindowRecord, ...]
    harm: Harm | None
    estimate: EstimatedFigure | None
    audit: Audit | None
    reference_loss: float | None
    outcomes: tuple[DriftFinding, ...]
    fault: str | None
    action: RetrainAction
    notes: tuple[str, ...]
    late: LateRows = LateRows()
    estimates: dict[str, EstimatedFigure] = {}
    estimate_refused: str | None = None

    @property
    def harm_since(self) -> datetime | None:
        """Since when the model loses more than it should; None where that is not shown."""
        if self.harm is None or self.harm.word != "worse":
            return None
        return min((finding.since for finding in self.harm.findings if finding.since is not None), default=None)

    @property
    def estimate_sentence(self) -> str:
        """The estimated loss beside that of the test rows, in a sentence; empty without an estimate."""
        if self.estimate is None:
            return ""
        return (
            f"without labels, the model is estimated to lose {self.estimate.value:.3g} "
            f"[{self.estimate.low:.3g}, {self.estimate.high:.3g}] a prediction, "
            f"against {self.reference_loss or 0:.3g} on its test rows"
        )

    def losses_since(self, since: datetime) -> tuple[float | None, float | None]:
        """Mean loss of a row since then, as estimated and as measured."""
        windows = [window for window in self.windows if window.end > since]
        return _mean((window.estimated, window.rows) for window in windows), _mean(
            (window.loss, window.labelled) for window in windows
        )


def _mean(pairs: Iterator[tuple[float | None, int]]) -> float | None:
    known = [(value, rows) for value, rows in pairs if value is not None and rows]
    return None if not known else sum(value * rows for value, rows in known) / sum(rows for _, rows in known)


def newest_since(evaluation: EvaluationResult) -> datetime:
    """Where the newest windows begin over which the loss is estimated."""
    if len(evaluation.windows) < 2:
        return evaluation.windows[0].start if evaluation.windows else evaluation.at
    return evaluation.windows[max(-SPAN, -len(evaluation.windows))].start


def audit_of(windows: Sequence[WindowRecord], before: float | None) -> Audit | None:
    """The estimates of windows beside what labels have shown; `before` is the loss on the test rows."""
    pairs = [
        ((window.low, window.estimated, window.high), window.loss)
        for window in windows
        if window.loss is not None
        and window.labelled >= LEAST_SHARE * window.rows
        and window.low is not None
        and window.estimated is not None
        and window.high is not None
    ]
    if before is None or not pairs:
        return None
    return audit([interval for interval, _ in pairs], [truth for _, truth in pairs], before=before)


def reason_for_distrust(several: bool, last: Harm | None, audit: Audit | None) -> str | None:
    """Why the newest windows are not estimated, though their scores would allow it; None where they are."""
    if several and last is not None and last.word == "worse":
        return "labels show harm, and of several classes it is not known whether scores see it"
    if audit is not None and not audit.holds:
        missed = f"{audit.windows - audit.covered} of {audit.windows}"
        return f"{missed} windows with labels lay outside the interval that was estimated for them"
    return None


def has_enough_labels(part: pl.DataFrame) -> bool:
    """Whether labels stand for all rows of a window: nearly all have one, or they were drawn with known chances.

    Of a few rows the best constant answer loses next to nothing, so that any model would seem to lack skill.
    """
    known = part.filter(pl.col("value").is_not_null())
    if known.height < _LEAST:
        return False
    chosen = bool((known["weight"].fill_null(1.0) > 1).any())
    return chosen or known.height >= LEAST_SHARE * part.height


def window_record(window: PredictionWindow, part: pl.DataFrame, estimate: EstimatedFigure | None) -> WindowRecord:
    """A window that was not evaluated (yet), with its estimate."""
    labelled = part.height - part["value"].null_count()
    return with_estimate(
        WindowRecord(start=window.start, end=window.end, rows=part.height, labelled=labelled), estimate
    )


def with_estimate(record: WindowRecord, estimate: EstimatedFigure | None) -> WindowRecord:
    """The window with its loss as estimated by its scores."""
    if estimate is None:
        return record
    return msgspec.structs.replace(record, estimated=estimate.value, low=estimate.low, high=estimate.high)
