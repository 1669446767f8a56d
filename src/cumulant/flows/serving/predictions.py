"""Queries of the prediction log: requests, answers, and rows known to be missing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.prediction import Prediction
from cumulant.core.units import from_micros, to_micros
from cumulant.flows.ledger.actions import verb
from cumulant.ports.log import Log
from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.serving.prediction_log.storage.log_reader import LogGap, LogPlace

FOLDER = "predictions"


class PredictionView(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the log: the record, with times as times and texts as JSON objects."""

    id: str
    row: int
    time: datetime
    event_time: datetime | None
    model: str
    version: str
    arm: str
    served_arm: str
    shadow: bool
    fingerprint: str
    state_age: float | None
    request: dict[str, object]
    outputs: dict[str, object]
    latency_us: int
    fallback: str
    worker: str
    sequence: int
    tenant: str
    region: str
    caller_id: str
    invalid: str
    principal: str
    features: dict[str, object]
    incomplete: str


@verb("predictions.show")
def prediction_log(project: Project, *, principal: Principal) -> Log:
    """Where the predictions of the project's servers are logged; it may have no day yet."""
    return project.log()


def log_in(folder: Path) -> Log:
    """The log whose parts are files below a folder."""
    return Drivers.installed().client(f"file://{folder.absolute()}", "log")  # type: ignore[no-any-return]


def show_prediction(log: Log, request: str) -> list[PredictionView]:
    """The rows of one request, else of all that a caller named so. Personal values are keyed hashes.

    Raises:
        NotFoundError: the log holds no request of that id.
        StorageError: a file cannot be read.
    """
    # Rows without an id of the caller have an empty one.
    from cumulant.serving.prediction_log.storage.log_reader import find_predictions

    predictions = request and (find_predictions(log, request) or find_predictions(log, request, by="caller_id"))
    if not predictions:
        raise NotFoundError(
            f'no prediction with the id "{request}" is in the log',
            subject=request,
            hint="a row is there some seconds after its answer; `cumulant predictions list` shows the newest ones",
        )
    return [_view(prediction) for prediction in predictions]


def list_predictions(
    log: Log,
    *,
    model: str | None = None,
    since: datetime | None = None,
    before: LogPlace | None = None,
    limit: int = 20,
) -> list[PredictionView]:
    """The newest rows of the log, newest first; with `before`, those that follow that one (`place_of`).

    Raises:
        StorageError: a file cannot be read.
    """
    from cumulant.serving.prediction_log.storage.log_reader import recent_predictions

    rows = recent_predictions(log, model=model, since=since, before=before, limit=limit)
    return [_view(prediction) for prediction in rows]


def place_of(prediction: PredictionView) -> LogPlace:
    """Where a row stands in the list of the newest ones."""
    return to_micros(prediction.time), prediction.worker, prediction.sequence, prediction.row


def lost_predictions(log: Log) -> list[LogGap]:
    """Requests that were answered and are not in the log.

    Raises:
        StorageError: a file cannot be read.
    """
    from cumulant.serving.prediction_log.storage.log_reader import find_gaps

    return find_gaps(log)


def _view(prediction: Prediction) -> PredictionView:
    plain = msgspec.structs.asdict(prediction)
    plain["time"] = from_micros(prediction.time)
    plain["event_time"] = None if prediction.event_time is None else from_micros(prediction.event_time)
    plain["request"], plain["outputs"] = _object(prediction.request), _object(prediction.outputs)
    plain["features"] = _object(prediction.features or "{}")
    return PredictionView(**plain)


def _object(text: str) -> dict[str, object]:
    value = msgspec.json.decode(text)
    return value if isinstance(value, dict) else {"": value}
