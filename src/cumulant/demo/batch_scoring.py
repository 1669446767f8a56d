"""Batch scoring in the demo: months without callers, and the labels that follow."""

from __future__ import annotations

import tempfile
import warnings
from datetime import datetime
from pathlib import Path

import cumulant
from cumulant.api import RowWarning
from cumulant.core.progress import Progress

_COLUMNS = {"id": "id", "time": "moment", "event_time": "moment", "prediction": "answer", "score": "score"}


def score(
    project: cumulant.Project, uri: str, since: datetime, until: datetime, progress: Progress, *, every: int = 1
) -> None:
    """Score each `every`th row of the period with the version `uri`, and ingest their labels."""
    import polars as pl

    if since >= until:
        return
    progress(f"flights of {since:%d %B} to {until:%d %B}")
    rows, labels = project.outcomes.past_requests(uri, since, until, every=every)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RowWarning)
        answers = project.predict(rows, model=uri)
    identity = pl.format("{}-{}", pl.lit(f"flight-{since:%m%d}"), "number").alias("id")
    scored = rows.with_columns(identity, answer=answers["prediction"], score=answers["probability"])
    with tempfile.TemporaryDirectory() as folder:
        predictions = Path(folder) / f"scored-{since:%m%d}.parquet"
        landed = Path(folder) / f"landed-{since:%m%d}.parquet"
        scored.drop("number").write_parquet(predictions)
        labels.with_columns(identity).drop("number").write_parquet(landed)
        project.outcomes.import_predictions(predictions, _COLUMNS, version=uri.rpartition("/")[2])
        project.outcomes.ingest_labels(landed)
