"""`project.outcomes`: past rows as requests, replays of them, predictions of other systems, and labels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.api.errors import short_methods
from cumulant.api.group import MethodGroup
from cumulant.core.units import to_micros
from cumulant.flows.ledger.actions import check
from cumulant.flows.replay.replay_progress import ReplayRequest, load_or_begin

if TYPE_CHECKING:
    import polars as pl

    from cumulant.flows.outcomes.labels import Intake
    from cumulant.flows.replay.replay import ReplayResult
    from cumulant.flows.replay.replay_rows import Period
    from cumulant.flows.serving.predictions import PredictionView
    from cumulant.outcomes.importing import ImportReport


@short_methods
class ProjectOutcomes(MethodGroup):
    """Predictions and labels of a project."""

    def past_requests(
        self, model: str, since: datetime, until: datetime, *, every: int = 1
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Each `every`th row of the project's data as a request to `model`, and the labels of these rows.

        Rows are those predicted in [since, until), in order, with their `number` and `moment` (UTC). Labels have
        `number`, `known_time` (UTC) and the columns of the target.

        Raises:
            DataError: no row lies in the period.
            UsageError: `model` was not trained from the project's data, or predicts at no moment.
        """
        return self._period(model, since, until).sample(every)

    def replay(
        self,
        since: datetime,
        until: datetime,
        *,
        speed: float = 1.0,
        concurrency: int = 32,
        restart: bool = False,
        scale_release: bool = True,
        is_cancelled: Callable[[], bool] | None = None,
        on_response: Callable[[str], None] | None = None,
    ) -> ReplayResult:
        """Send the rows of [since, until) through the gateway, `speed` times as fast, as `cumulant replay`.

        At most `concurrency` requests run at once; where they are slower than the pace, the replayed clock waits.
        `restart` begins again where an earlier replay was cut off. With `scale_release`, the stages of a release last
        replayed time. `on_response` is called after each response with the party that failed the request: `champion`,
        `candidate`, `gateway`, `caller`, or an empty text. It and `is_cancelled` run on the sending thread.

        Raises:
            UsageError: the period is empty, or the served model was not trained from the project's data.
            DataError: no row lies in the period.
            EngineUnavailableError: no gateway runs.
        """
        from cumulant.flows.replay.replay import replay
        from cumulant.flows.replay.sending import failed_party

        with self._follow("replay") as progress:
            return replay(
                self._loaded,
                principal=self._principal,
                since=since,
                until=until,
                speed=speed,
                concurrency=concurrency,
                again=restart,
                release_clock=scale_release,
                ended=is_cancelled or (lambda: False),
                seen=lambda sent: None if on_response is None else on_response(failed_party(sent)),
                progress=progress,
            )

    def ingest_replayed_labels(self, model: str, since: datetime, until: datetime) -> None:
        """Ingest the labels that a replay of the period did not send, because it was stopped before they were known."""
        import polars as pl

        period = self._period(model, since, until)
        request = ReplayRequest(model=period.model, since=to_micros(since), until=to_micros(until))
        ids = load_or_begin(self._loaded.state, request).ids
        if not ids:
            return
        columns = {"number": list(ids), "id": list(ids.values())}
        answered = pl.DataFrame(columns, schema={"number": pl.UInt32, "id": pl.String})
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "labels.parquet"
            period.sample(1)[1].join(answered, on="number").drop("number").write_parquet(file)
            self.ingest_labels(file)

    def predictions(
        self, *, model: str | None = None, since: datetime | None = None, limit: int = 20
    ) -> list[PredictionView]:
        """The newest rows of the prediction log, newest first, as `cumulant predictions list`.

        A row is there some seconds after its answer. `.features`: of the share of requests that
        `serving.log.features` declares.

        Raises:
            StorageError: the log cannot be read.
        """
        from cumulant.flows.serving.predictions import list_predictions, prediction_log

        log = prediction_log(self._loaded, principal=self._principal)
        return list_predictions(log, model=model, since=since, limit=limit)

    def import_predictions(
        self, path: Path | str, columns: Mapping[str, str], *, version: str = "imported"
    ) -> ImportReport:
        """Add predictions of another system to the prediction log, once; as `cumulant labels import-predictions`.

        `columns` names the column of each part: `id`, `time`, `prediction`, `score` and so on.

        Raises:
            UsageError: a part has no column.
            DataError: the file cannot be read.
        """
        from cumulant.flows.outcomes.labels import import_predictions

        return import_predictions(self._loaded, Path(path), columns, principal=self._principal, version=version)

    def ingest_labels(self, *files: Path | str) -> Intake:
        """Read files of labels (default: those of the project file) and join them; as `cumulant labels ingest`.

        Raises:
            UsageError: no file is named.
            DataError: a file cannot be read.
        """
        from cumulant.flows.outcomes.labels import ingest_labels

        return ingest_labels(self._loaded, [str(file) for file in files], principal=self._principal)

    def _period(self, model: str, since: datetime, until: datetime) -> Period:
        from cumulant.flows.replay.replay_rows import Period

        check(self._loaded, self._principal, "data.show")
        return Period(self._loaded, self._loaded.registry().resolve(model), since, until)
