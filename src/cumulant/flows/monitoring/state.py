"""The stored state of monitoring: evaluated windows, sums of losses, and the retraining request."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from cumulant.core.errors import LeaseHeldError
from cumulant.monitoring.performance.loss_monitor import Harm
from cumulant.monitoring.retrain_rule import RetrainState, Trigger

if TYPE_CHECKING:
    from cumulant.monitoring.events import PerformanceEvaluated
    from cumulant.ports.journal import Journal, Transaction

#: journal rows, by model: the state, and the newest retraining request
WATCH, TRAINING = "watch", "watch_training"
#: journal rows, by model: the columns of the newest comparison that changed anything
COLUMNS = "drift_columns"

#: released: by a release, as the champion, or equal to it without harm. offered: it is the candidate, and the alias is
#: moved by hand
Stage = Literal["requested", "trained", "released", "offered", "refused", "failed"]


class WindowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One window of the served model. Losses are means of a row; None where not known (yet).

    loss_low, loss_high: 95% of `loss`, of rows that are independent of each other. estimated, low, high: the loss by
    scores before labels came, with 95%. refit: loss of a recent refit on the same rows. positive: the mean of the
    labels.
    """

    start: datetime
    end: datetime
    rows: int
    labelled: int
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    refit: float | None = None
    estimated: float | None = None
    low: float | None = None
    high: float | None = None
    positive: float | None = None
    word: str = "cannot_tell"


class MonitoringState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of `version`. Windows up to `until` are evaluated; `windows` are the newest of them.

    pending: windows that have ended and wait for labels. reference_loss: on the test rows.
    harm: the sums of `LossMonitor`; None without a reference. last_harm: the `Harm` of the newest labelled window.
    labels: new ones since the training. last_event: the newest event of an evaluation; an equal one emits none.
    """

    version: str
    since: datetime
    until: datetime
    retrain: RetrainState
    harm: dict[str, object] | None = None
    last_harm: dict[str, object] | None = None
    windows: tuple[WindowRecord, ...] = ()
    pending: tuple[WindowRecord, ...] = ()
    reference_loss: float | None = None
    labels: int = 0
    last_event: dict[str, object] = {}

    @property
    def newest_harm(self) -> Harm | None:
        """The harm after the newest evaluated window: it holds until another one is evaluated."""
        return None if self.last_harm is None else msgspec.convert(self.last_harm, Harm)


class ComparedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column in the newest window of a comparison. `missing`: share of missing values; None of a label."""

    feature: str
    effect: float
    missing: float | None
    alarming: bool


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A requested training and its progress. `candidate`: its version. `since`: of harm, when it began. `slo_hold`: its
    release waits for the objectives of the served model.
    """

    requested: datetime
    champion: str
    trigger: Trigger
    sentence: str
    stage: Stage = "requested"
    candidate: str | None = None
    release: str | None = None
    message: str = ""
    since: datetime | None = None
    slo_hold: bool = False

    @property
    def open(self) -> bool:
        """Whether something is still to be done."""
        return self.stage in ("requested", "trained")


def harm_values(harm: Harm | None) -> dict[str, object] | None:
    """As `MonitoringState.last_harm` holds it."""
    return None if harm is None else cast("dict[str, object]", msgspec.to_builtins(harm))


def read_state(journal: Journal | Transaction, key: str) -> tuple[MonitoringState | None, int]:
    """The state of a model, or of its version `MODEL/VERSION` as another one began to serve; and its row's version."""
    row = journal.get(WATCH, key)
    return (None, 0) if row is None else (msgspec.convert(row.value, MonitoringState), row.version)


def read_request(journal: Journal | Transaction, model: str) -> tuple[RetrainRequest | None, int]:
    """The newest retraining request, and the version of its row."""
    row = journal.get(TRAINING, model)
    return (None, 0) if row is None else (msgspec.convert(row.value, RetrainRequest), row.version)


def write(
    transaction: Transaction, kind: str, model: str, value: MonitoringState | RetrainRequest, *, expect: int
) -> int:
    """The row's new version. Raises LeaseHeldError where another process has written meanwhile."""
    try:
        return transaction.put(kind, model, msgspec.to_builtins(value), expect=expect).version
    except LeaseHeldError as error:
        doing = "evaluated" if kind == WATCH else "carried on the training of"
        raise LeaseHeldError(
            f"another process has {doing} {model} meanwhile",
            subject=model,
            hint="nothing was written here: the next evaluation continues from what the other one wrote",
        ) from error


def event_values(fact: PerformanceEvaluated) -> dict[str, object]:
    """The values of an event, without how many windows were new."""
    fields = cast("dict[str, object]", msgspec.to_builtins(fact))
    return {name: value for name, value in fields.items() if name != "windows"}


def is_same(state: MonitoringState, other: MonitoringState) -> bool:
    """Whether both are stored alike: what was read has lists where a new one has tuples."""
    return msgspec.json.encode(state) == msgspec.json.encode(other)
