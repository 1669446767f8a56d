"""Batch scoring in the demo: months without callers, and the labels that follow."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.progress import Progress
from cumulant.core.units import to_micros
from cumulant.flows.outcomes.labels import import_predictions, ingest_labels
from cumulant.flows.replay.replay_progress import ReplayRequest, load_or_begin
from cumulant.flows.replay.replay_rows import Period
from cumulant.flows.serving.predict import predict

if TYPE_CHECKING:
    from cumulant.project.project import Project

_PARTS = {"id": "id", "time": "moment", "event_time": "moment", "prediction": "answer", "score": "score"}


def score(project: Project, uri: str, since: datetime, until: datetime, progress: Progress, *, every: int = 1) -> None:
    """Answer each `every`th row of the period with the version `uri`, and take in what became of them.

    A label counts from when it was known: a look before that does not see it. Without a period nothing is done.
    """
    import polars as pl

    if since >= until:
        return
    progress(f"flights of {since:%d %B} to {until:%d %B}")
    who, version = project.principal(), project.registry().resolve(uri)
    rows, labels = Period(project, version, since, until).sample(every)
    answers = predict(project, uri, rows, principal=who)
    named = pl.format("{}-{}", pl.lit(f"flight-{since:%m%d}"), "number").alias("id")
    sent = rows.with_columns(named, answer=answers["prediction"], score=answers["probability"])
    known = labels.with_columns(named)
    with tempfile.TemporaryDirectory() as folder:
        file, labels_file = Path(folder) / f"scored-{since:%m%d}.parquet", Path(folder) / f"landed-{since:%m%d}.parquet"
        sent.drop("number").write_parquet(file)
        known.drop("number").write_parquet(labels_file)
        import_predictions(project, file, _PARTS, principal=who, version=version.version)
        ingest_labels(project, [str(labels_file)], principal=who)


def labels_after(project: Project, uri: str, since: datetime, until: datetime) -> None:
    """Take in what becomes known of answered rows after a replay of the period was ended. Without it the last day of a
    replay has the labels of flights that were in time and lacks those of flights that came late.
    """
    import polars as pl

    period = Period(project, project.registry().resolve(uri), since, until)
    ids = load_or_begin(
        project.state, ReplayRequest(model=period.model, since=to_micros(since), until=to_micros(until))
    ).ids
    if not ids:
        return
    answered = pl.DataFrame(
        {"number": list(ids), "id": list(ids.values())}, schema={"number": pl.UInt32, "id": pl.String}
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "landed.parquet"
        period.sample(1)[1].join(answered, on="number").drop("number").write_parquet(file)
        ingest_labels(project, [str(file)], principal=project.principal())
