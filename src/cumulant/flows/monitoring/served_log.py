"""The served model's predictions and outcomes, as monitoring reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.expr import columns as columns_of
from cumulant.core.ids import digest
from cumulant.core.prediction import read_object
from cumulant.core.units import EPOCH, from_micros, micros, to_micros
from cumulant.core.version import __version__
from cumulant.flows.features.task import target_of
from cumulant.flows.monitoring.result_cache import cache_folder, remove_oldest
from cumulant.flows.monitoring.scored_rows import ScoredRows
from cumulant.flows.outcomes.labels import outcomes_of
from cumulant.flows.registry.model_record import find_record
from cumulant.monitoring.performance.rows import PredictionRows, are_probabilities, rounded
from cumulant.monitoring.tables import ANSWER, MOMENT
from cumulant.outcomes.join.join_cache import JoinCache
from cumulant.outcomes.join.log_rows import IDENTITY, scan_log, scan_log_keys
from cumulant.outcomes.join.prediction_losses import class_probabilities
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.review.reasons import decode_requests

if TYPE_CHECKING:
    from cumulant.core.plan import Field, Source
    from cumulant.core.servable import Task
    from cumulant.data.parts.spill import Spill
    from cumulant.flows.monitoring.reference import ServedReference
    from cumulant.monitoring.performance.blocks import Loss
    from cumulant.project.project import Project

#: rows of a day depend on each other
_DAY = timedelta(days=1)
_EPOCH = np.datetime64(0, "us")
#: by what a prediction is found among the rows of the sources
REF = "key_ref"
_PLACE = "place"
#: what a field of a request is read as
_HELD: dict[str, pl.DataType] = {"int": pl.Float64(), "float": pl.Float64(), "bool": pl.Boolean(), "str": pl.String()}
_KNOWN = ["version", MOMENT, "time", "score", "decision", "value", "weight", *IDENTITY]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What the served model answers, and of what. `positive`: the class whose probability is the score; None for a
    number and for several classes.
    """

    name: str
    task: Task
    classes: tuple[str | int | bool, ...]
    request: tuple[Field, ...]
    source: Source

    @property
    def positive(self) -> str | int | bool | None:
        return self.classes[1] if len(self.classes) == 2 else None

    @property
    def several(self) -> bool:
        """Whether it has more than two classes: its score is a probability of each."""
        return self.task == "multiclass"

    @property
    def loss(self) -> Loss:
        """By which its answers are compared with labels."""
        return "squared_error" if self.task == "regression" else "brier"


def model_of(served: ServedReference) -> ServedModel:
    """What the version answers."""
    from cumulant.servable.scorer import labels

    described = served.described
    return ServedModel(
        name=served.version.name,
        task=described.task,
        classes=labels(described),
        request=tuple(described.plan.request),
        source=described.plan.sources[described.plan.entity],
    )


def read_scored_rows(
    project: Project,
    schema: LabelSchema,
    model: ServedModel,
    *,
    since: datetime,
    at: datetime,
    window: timedelta,
    spill: Spill,
) -> ScoredRows:
    """The answered rows with a moment of prediction in [since, at), by window, with the labels known by `at`.

    Columns: `version`, `moment`, `time`, `score`, `decision`, `value` (the label's number or the place of its class,
    null without one), `weight` (predictions that a label stands for) and what tells rows of the log apart. Mirrored
    copies are left out. Of several classes a score is an array of their probabilities, null where they are not told.

    Raises:
        StorageError: a file cannot be read, or rows cannot be set aside.
    """
    number = count()

    def begin() -> ScoredRows:
        return ScoredRows(spill, f"scored.{next(number)}", window, since=since, until=at)

    return _cache(project, schema, model).rows(begin, since=since.date(), at=at)


def _cache(project: Project, schema: LabelSchema, model: ServedModel) -> JoinCache:
    """The join of the project's log and labels, of which only what has changed since the last look is made again."""
    root = cache_folder(project, "monitoring", "rows")
    classes = [[type(label).__name__, label] for label in model.classes]
    key = digest([model.name, model.task, classes, msgspec.to_builtins(schema.key), __version__])[:32]
    remove_oldest(root, key)
    return JoinCache(outcomes_of(project, schema), root / key, partial(_counted_rows, model=model))


def _counted_rows(frame: pl.DataFrame, model: ServedModel) -> pl.DataFrame:
    """The rows that monitoring counts, with what was decided."""
    own = frame.filter((pl.col("model") == model.name) & ~pl.col("shadow"))
    if model.several:
        rows = own.with_columns(_probabilities(own["outputs"], model), _places(own["label"], model))
    else:
        rows = own.filter(pl.col("score").is_not_null() & pl.col("score").is_finite())
    prediction = pl.col("outputs").str.json_path_match("$.prediction").str.to_lowercase()
    decision = pl.lit(None, pl.Boolean) if model.positive is None else prediction == str(model.positive).lower()
    return rows.with_columns(pl.coalesce("event_time", "time").alias(MOMENT), decision.alias("decision")).select(_KNOWN)


def _probabilities(outputs: pl.Series, model: ServedModel) -> pl.Series:
    """[n] arrays of the probabilities of all classes; null where an answer does not tell them."""
    values = np.full((len(outputs), len(model.classes)), np.nan)
    for place, text in enumerate(outputs):
        probabilities = class_probabilities(read_object(text), model.classes)
        if probabilities is not None:
            values[place] = probabilities
    values = rounded(values)
    whole = are_probabilities(values)
    kind = pl.Array(pl.Float64, len(model.classes))
    scores = [row if good else None for row, good in zip(values.tolist(), whole, strict=True)]
    return pl.Series("score", scores, dtype=kind)


def _places(labels: pl.Series, model: ServedModel) -> pl.Series:
    """[n] the place of each label's class; labels are JSON, as they are kept."""
    named = [msgspec.json.encode(label).decode() for label in model.classes]
    places = [float(place) for place in range(len(named))]
    return labels.replace_strict(named, places, default=None, return_dtype=pl.Float64).alias("value")


def row_references(project: Project, model: ServedModel, rows: pl.DataFrame) -> pl.Series:
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
    wanted = rows.select(*IDENTITY, "time").with_row_index(_PLACE)
    parts = []
    for frame in scan_log_keys(project.log(), model.request, since=first, until=last + timedelta(microseconds=1)):
        # A join takes memory by all rows that it looks among, and a batch of the log is of a short time.
        near = wanted.filter(pl.col("time").is_between(frame["time"].min(), frame["time"].max()))
        parts.append(frame.join(near, on=IDENTITY).select(_PLACE, REF))
    matched = pl.concat(parts).unique(_PLACE)
    return wanted.select(_PLACE).join(matched, on=_PLACE, how="left", maintain_order="left")[REF]


def request_values(project: Project, fields: Sequence[Field], rows: pl.DataFrame) -> pl.DataFrame:
    """[n] what the requests of `rows` held in `fields` that are flags, numbers or texts; null where they did not.

    Raises:
        StorageError: the log cannot be read.
    """
    wanted = rows.select(IDENTITY)
    schema = {field.name: _HELD[field.dtype] for field in fields}
    parts = [pl.DataFrame(schema={**wanted.schema, **{f"asked.{name}": kind for name, kind in schema.items()}})]
    if rows.height:
        since, until = rows["time"].min(), rows["time"].max()
        assert isinstance(since, datetime)
        assert isinstance(until, datetime)
        for frame in scan_log(project.log(), (), since=since, until=until + timedelta(microseconds=1)):
            part = frame.select(*IDENTITY, "request").join(wanted, on=IDENTITY, how="semi")
            contents = decode_requests(part)
            columns = (
                pl.Series(f"asked.{name}", [field.get(name) for field in contents], dtype=kind, strict=False)
                for name, kind in schema.items()
            )
            parts.append(part.select(IDENTITY).with_columns(columns))
    values = wanted.join(pl.concat(parts).unique(IDENTITY), on=IDENTITY, how="left", maintain_order="left")
    return values.select(pl.col(f"asked.{name}").alias(name) for name in schema)


def predictions(rows: pl.DataFrame, window: timedelta) -> PredictionRows:
    """Rows of `scored` as predictions; rows of a day, or of a shorter window, depend on each other."""
    time = rows[MOMENT].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    weight = rows["weight"].fill_null(1.0).clip(lower_bound=1.0).to_numpy()
    decision = rows["decision"]
    return PredictionRows(
        time=time,
        score=rows["score"].to_numpy(),
        truth=rows["value"].fill_null(np.nan).to_numpy(),
        decision=None if decision.null_count() else decision.to_numpy(),
        cluster=time.astype(np.int64) // micros(min(window, _DAY)),
        label_chance=1 / weight if (weight > 1).any() else None,
    )


def tested_rows(served: ServedReference) -> pl.DataFrame:
    """The test rows of the version's training, which it never saw, as the reference has them: with its answers and the
    truth. Rows without times are of one moment.
    """
    rows = pl.read_parquet(served.path).filter(pl.col(served.truth).is_not_null())
    if MOMENT not in rows.columns:
        return rows.with_columns(pl.lit(EPOCH).alias(MOMENT))
    return rows.filter(pl.col(MOMENT).is_not_null())


def test_predictions(rows: pl.DataFrame, truth: str, model: ServedModel, window: timedelta) -> PredictionRows:
    """`tested_rows`, whose truth is in the column `truth`, as predictions. Rows without times each stand alone."""
    decision = pl.lit(None, pl.Boolean)
    if model.several:
        names = [str(label) for label in model.classes]
        probabilities = rows[f"{ANSWER}probabilities"].struct.unnest().select(names).to_numpy()
        score = pl.Series("score", probabilities, dtype=pl.Array(pl.Float64, len(names)))
        known = rows[truth].replace_strict(list(model.classes), list(range(len(names))))
    elif model.positive is not None:
        score, known = rows[f"{ANSWER}probability"], rows[truth] == model.positive
        decision = pl.col(f"{ANSWER}prediction") == model.positive
    else:
        score, known = rows[f"{ANSWER}prediction"], rows[truth]
    answered = predictions(
        rows.select(
            pl.col(MOMENT),
            score.alias("score"),
            decision.alias("decision"),
            known.cast(pl.Float64).alias("value"),
            pl.lit(None, pl.Float64).alias("weight"),
        ),
        window,
    )
    return replace(answered, cluster=None) if (answered.time == _EPOCH).all() else answered


def window_start(when: datetime, window: timedelta) -> datetime:
    """Where the window begins that holds `when`; windows are counted from 1970."""
    return from_micros(to_micros(when) // micros(window) * micros(window))


def label_delay(project: Project, served: ServedReference, model: ServedModel) -> timedelta:
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
