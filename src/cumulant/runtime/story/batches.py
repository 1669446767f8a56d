"""Months of the demo that no caller replays: scored as a batch, and taken into the log as other systems' logs are."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.progress import Progress
from cumulant.runtime.labels import import_predictions, ingest_labels
from cumulant.runtime.predict import predict
from cumulant.runtime.replay.rows import Period

if TYPE_CHECKING:
    from cumulant.project import Project

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
        file, told = Path(folder) / f"scored-{since:%m%d}.parquet", Path(folder) / f"landed-{since:%m%d}.parquet"
        sent.drop("number").write_parquet(file)
        known.drop("number").write_parquet(told)
        import_predictions(project, file, _PARTS, principal=who, version=version.version)
        ingest_labels(project, [str(told)], principal=who)
