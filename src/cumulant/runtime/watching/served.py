"""What was served and what became of it, as monitoring reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cumulant import packaging
from cumulant.core.expr import columns as columns_of
from cumulant.core.servable import Servable
from cumulant.core.units import EPOCH, from_micros, micros, to_micros
from cumulant.monitoring.performance import Predictions
from cumulant.monitoring.tables import ANSWER, MOMENT
from cumulant.outcomes import LabelSchema
from cumulant.outcomes.scored import IDENTITY, logged
from cumulant.runtime.candidate import find_record
from cumulant.runtime.labels import outcomes_of
from cumulant.runtime.models import servable_folder
from cumulant.runtime.predictions import FOLDER
from cumulant.runtime.task import target_of

if TYPE_CHECKING:
    from cumulant.core.plan import Field, Source
    from cumulant.core.servable import Task
    from cumulant.project import Project
    from cumulant.runtime.watching.reference import Served

#: rows of a day depend on each other
_DAY = timedelta(days=1)
#: by what a prediction is found among the rows of the sources
REF = "key_ref"
_KNOWN = ["version", MOMENT, "time", "score", "decision", "value", "weight", *IDENTITY]


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the served model answers, and of what. `positive`: the class whose probability is the score; None for a
    number.
    """

    name: str
    task: Task
    classes: tuple[str | int | bool, ...]
    request: tuple[Field, ...]
    source: Source

    @property
    def positive(self) -> str | int | bool | None:
        return self.classes[1] if len(self.classes) == 2 else None


def model_of(project: Project, served: Served) -> Model:
    """What the version answers."""
    described = packaging.load_description(servable_folder(project, served.version))
    assert isinstance(described, Servable)
    return Model(
        name=served.version.name,
        task=described.task,
        classes=packaging.labels(described),
        request=tuple(described.plan.request),
        source=described.plan.sources[described.plan.entity],
    )


def scored(project: Project, schema: LabelSchema, model: Model, *, since: datetime, at: datetime) -> pl.DataFrame:
    """The answered rows with a moment of prediction in [since, at), oldest first, with the labels known by `at`.

    Columns: `version`, `moment`, `time`, `score`, `decision`, `value` (the label's number, null without one), `weight`
    (predictions that a label stands for) and what tells rows of the log apart. Mirrored copies are left out.

    Raises:
        StorageError: a file cannot be read.
    """
    parts = [
        _told(frame, model).filter(pl.col(MOMENT).is_between(since, at, closed="left"))
        for frame in outcomes_of(project, schema).table(since=since.date(), as_of=at)
    ]
    return pl.concat(parts).sort(MOMENT, maintain_order=True) if parts else _empty()


def _told(frame: pl.DataFrame, model: Model) -> pl.DataFrame:
    """The rows that monitoring counts, with what was decided."""
    own = (pl.col("model") == model.name) & ~pl.col("shadow")
    rows = frame.filter(own & pl.col("score").is_not_null() & pl.col("score").is_finite())
    said = pl.col("outputs").str.json_path_match("$.prediction").str.to_lowercase()
    decision = pl.lit(None, pl.Boolean) if model.positive is None else said == str(model.positive).lower()
    return rows.with_columns(pl.coalesce("event_time", "time").alias(MOMENT), decision.alias("decision")).select(_KNOWN)


def _empty() -> pl.DataFrame:
    time, number = pl.Datetime("us", "UTC"), pl.Float64()
    kinds: list[pl.DataType] = [pl.String(), time, time, number, pl.Boolean(), number, number]
    return pl.DataFrame(schema=dict(zip(_KNOWN, [*kinds, pl.String(), pl.Int64(), pl.Int32()], strict=True)))


def refs(project: Project, model: Model, rows: pl.DataFrame) -> pl.Series:
    """By what each of `rows` is found among the rows of the sources: all fields of its request and the moment; null
    where a field has no value. Rows that are asked alike are answered alike, so that any of them will do.

    Raises:
        StorageError: the log cannot be read.
    """
    if not rows.height:
        return pl.Series(REF, [], dtype=pl.String)
    first, last = rows["time"].min(), rows["time"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    wanted = rows.select(IDENTITY)
    log = project.state / FOLDER
    parts = [
        frame.select(*IDENTITY, REF).join(wanted, on=IDENTITY, how="semi")
        for frame in logged(log, model.request, since=first, until=last + timedelta(microseconds=1))
    ]
    found = pl.concat(parts).unique(IDENTITY)
    return rows.select(IDENTITY).join(found, on=IDENTITY, how="left", maintain_order="left")[REF]


def predictions(rows: pl.DataFrame, window: timedelta) -> Predictions:
    """Rows of `scored` as predictions; rows of a day, or of a shorter window, depend on each other."""
    time = rows[MOMENT].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    weight = rows["weight"].fill_null(1.0).clip(lower_bound=1.0).to_numpy()
    decision = rows["decision"]
    return Predictions(
        time=time,
        score=rows["score"].to_numpy(),
        truth=rows["value"].fill_null(np.nan).to_numpy(),
        decision=None if decision.null_count() else decision.to_numpy(),
        cluster=time.astype(np.int64) // micros(min(window, _DAY)),
        label_chance=1 / weight if (weight > 1).any() else None,
    )


def tested(served: Served, model: Model, window: timedelta) -> Predictions:
    """The test rows of the version's training, which it never saw, with its answers and the truth. Rows without times
    are of one window, and each stands alone.
    """
    found = pl.read_parquet(served.path).filter(pl.col(served.truth).is_not_null())
    timed = MOMENT in found.columns
    found = found.filter(pl.col(MOMENT).is_not_null()) if timed else found.with_columns(pl.lit(EPOCH).alias(MOMENT))
    said = f"{ANSWER}probability" if model.positive is not None else f"{ANSWER}prediction"
    truth = pl.col(served.truth).cast(pl.Float64) if model.positive is None else pl.col(served.truth) == model.positive
    decision = pl.lit(None, pl.Boolean) if model.positive is None else pl.col(f"{ANSWER}prediction") == model.positive
    rows = found.select(
        pl.col(MOMENT), pl.col(said).cast(pl.Float64).alias("score"), decision.alias("decision"),
        truth.cast(pl.Float64).alias("value"), pl.lit(None, pl.Float64).alias("weight"),
    )  # fmt: skip
    held = predictions(rows, window)
    return held if timed else replace(held, cluster=None)


def floored(when: datetime, window: timedelta) -> datetime:
    """Where the window begins that holds `when`; windows are counted from 1970."""
    return from_micros(to_micros(when) // micros(window) * micros(window))


def label_delay(project: Project, served: Served, model: Model) -> timedelta:
    """How long labels take: as the sources declare it. Where that stands in a column, what it was in training: between
    the rows learned from and the test rows lies the time that labels needed to become known.
    """
    record = find_record(project, served.version)
    if record is None:
        return timedelta()
    named = columns_of(target_of(record.training, {field.name for field in model.source.fields}))
    declared = [known for name, known in model.source.known.items() if name in named]
    if declared and all(known.column is None for known in declared):
        return timedelta(microseconds=max(known.delay_us for known in declared))
    split = record.fitted.split
    if split.train_to is None or split.test_from is None:
        return timedelta()
    return max(timedelta(), split.test_from - split.train_to)
