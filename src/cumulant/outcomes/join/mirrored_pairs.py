"""Mirrored requests: the row that was answered and the one that was scored beside it."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from cumulant.core.prediction import read_object
from cumulant.core.traffic import CHAMPION
from cumulant.outcomes.join.log_rows import IDENTITY
from cumulant.outcomes.join.prediction_losses import decision, loss

_TIME = pa.timestamp("us", "UTC")
#: identity is the mirrored row's; `answered_*` is that of the answered one
PAIRS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("time", _TIME, nullable=False),
        pa.field("model", pa.string(), nullable=False),
        *(
            pa.field(f"{arm}_{name}", pa.string())
            for arm in ("champion", "candidate")
            for name in ("version", "outputs")
        ),
        pa.field("champion", pa.float64()),
        pa.field("candidate", pa.float64()),
        pa.field("differs", pa.bool_(), nullable=False),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("answered_worker", pa.string(), nullable=False),
        pa.field("answered_sequence", pa.int64(), nullable=False),
    ]
)
_HEAD = ["id", "row", "time", "model", "champion_version", "candidate_version", "worker", "sequence"]
GRADED = pa.schema(
    [
        *(PAIRS.field(name) for name in _HEAD),
        pa.field("champion", pa.float64(), nullable=False),
        pa.field("candidate", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("label_known_time", _TIME),
        pa.field("score", pa.float64()),
    ]
)


class MirroredPair(msgspec.Struct, frozen=True, kw_only=True):
    """One row that both arms scored; scores as in `prediction_losses.score`, None where an answer has no number."""

    id: str
    row: int
    time: datetime
    model: str
    champion_version: str
    candidate_version: str
    champion: float | None
    candidate: float | None
    differs: bool


class GradedPair(msgspec.Struct, frozen=True, kw_only=True):
    """One such row whose label has come: each arm's loss, where more is worse, and the champion's score.

    The score is None where the answer has no number, and in rows of earlier versions of this program.
    """

    id: str
    row: int
    time: datetime
    model: str
    champion_version: str
    candidate_version: str
    champion: float
    candidate: float
    weight: float
    label: Any
    label_known_time: datetime
    score: float | None = None


def pair_rows(answered: pl.DataFrame, mirrored: pl.DataFrame) -> pl.DataFrame:
    """The pairs among rows that were answered and rows that were mirrored: same request, row and model.

    The arm is the one that the server logged; where it logged none, the mirrored row is the candidate's. Of an
    id that came twice each mirrored row is paired once.
    """
    both = mirrored.join(answered, on=["id", "row", "model"], suffix="_answered").filter(
        (pl.col("served_arm") != pl.col("served_arm_answered")) | (pl.col("version") != pl.col("version_answered"))
    )
    swapped = pl.col("served_arm") == CHAMPION
    both = both.sort((pl.col("time") - pl.col("time_answered")).abs()).unique(
        IDENTITY, keep="first", maintain_order=True
    )

    def of(arm: str, name: str) -> pl.Expr:
        mine, other = pl.col(name), pl.col(f"{name}_answered")
        first = mine if arm == "candidate" else other
        return pl.when(swapped).then(other if arm == "candidate" else mine).otherwise(first)

    named = [
        of(arm, name).alias(f"{arm}_{name}") for arm in ("champion", "candidate") for name in ("version", "outputs")
    ]
    scores = [of(arm, "score").alias(arm) for arm in ("champion", "candidate")]
    pairs = both.select(
        "id",
        "row",
        "time",
        "model",
        *named,
        *scores,
        "worker",
        "sequence",
        pl.col("worker_answered").alias("answered_worker"),
        pl.col("sequence_answered").alias("answered_sequence"),
    )
    texts = zip(pairs["champion_outputs"], pairs["candidate_outputs"], strict=True)
    differs = [decision(read_object(champion)) != decision(read_object(other)) for champion, other in texts]
    return pairs.with_columns(pl.Series("differs", differs, dtype=pl.Boolean))


def grade_pairs(pairs: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """The pairs that have a label among `labelled`, with each arm's loss. A pair whose loss is unknown is left out."""
    on = {"answered_worker": "worker", "answered_sequence": "sequence", "row": "row"}
    joined = pairs.join(labelled, left_on=list(on), right_on=list(on.values()), how="inner")
    joined = joined.with_columns(score=pl.col("champion"))
    losses: dict[str, list[float | None]] = {}
    for arm in ("champion", "candidate"):
        rows = zip(joined[f"{arm}_outputs"], joined["label"], joined["value"], strict=True)
        losses[arm] = [loss(read_object(text), _value(label), value) for text, label, value in rows]
    with_losses = joined.with_columns(pl.Series(arm, values, dtype=pl.Float64) for arm, values in losses.items())
    good = pl.all_horizontal(pl.col(arm).is_not_null() & pl.col(arm).is_finite() for arm in losses)
    return with_losses.filter(good).with_columns(pl.col("weight").fill_null(1.0)).select(GRADED.names)


def to_pairs(rows: pl.DataFrame) -> list[MirroredPair]:
    names = MirroredPair.__struct_fields__
    return [MirroredPair(**row) for row in rows.select(names).to_dicts()]


def to_graded(frame: pl.DataFrame) -> list[GradedPair]:
    rows = frame.select(GradedPair.__struct_fields__).to_dicts()
    return [GradedPair(**{**row, "label": _value(row["label"])}) for row in rows]


def _value(text: str | None) -> Any:
    value = None if text is None else msgspec.json.decode(text)
    return None if isinstance(value, float) and not math.isfinite(value) else value
