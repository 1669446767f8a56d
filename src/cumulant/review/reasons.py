"""Why a row is worth a look, as scores from 0 to 1 over the rows of a batch of the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cumulant import statistics
from cumulant.core.errors import DefinitionError
from cumulant.core.expr import Node
from cumulant.core.prediction import read_object
from cumulant.core.servable import Task
from cumulant.review.sampling import Floats

if TYPE_CHECKING:
    import polars as pl

#: usefulness of a row of a watched slice: less than disagreement or uncertainty
_WATCHED = 0.25


@dataclass(frozen=True, kw_only=True)
class ReviewReference:
    """Test and training rows of the version that answers.

    calibration: [m, k] probabilities of test rows; target: [m] the place of their class. known: training rows as
    coordinates; scale: from requests to coordinates. rows: shown values of a neighbour, by the row of `known`. spread:
    of a regression, from coordinates [n, m] and answers [n] to expected errors [n]; spreads: [k] of test rows.
    """

    task: Task
    classes: tuple[str | int | bool, ...] = ()
    calibration: Floats | None = None
    target: NDArray[np.int64] | None = None
    scale: statistics.Scale | None = None
    known: statistics.Known | None = None
    rows: Sequence[Mapping[str, object]] = ()
    spread: Callable[[Floats, Floats], Floats] | None = None
    spreads: Floats | None = None


def decode_requests(frame: pl.DataFrame) -> list[dict[str, object]]:
    """The requests, one a row of the log; an object without fields where one cannot be read."""
    return [read_object(text) for text in frame["request"]]


def read_probabilities(frame: pl.DataFrame, reference: ReviewReference) -> Floats:
    """[n, k] in the order of the classes; NaN in rows whose answer has no probabilities."""
    from cumulant.outcomes.join.prediction_losses import class_probabilities

    probabilities = np.full((frame.height, len(reference.classes)), np.nan)
    for place, text in enumerate(frame["outputs"]):
        outputs = read_object(text)
        several = class_probabilities(outputs, reference.classes)
        if several is not None:
            probabilities[place] = several
        elif len(reference.classes) == 2:
            chance = _number(outputs.get("probability", outputs.get("score")))
            probabilities[place] = 1 - chance, chance
    return probabilities


def score_uncertainty(frame: pl.DataFrame, reference: ReviewReference, error: float) -> Floats:
    """[n] the p-value of the second most likely answer where it stays possible, else 0.

    The sets are those of `statistics.prediction_sets` by class, so that a rare class is not excluded for being rare.
    """
    if reference.calibration is None or reference.target is None or len(reference.classes) < 2:
        return np.zeros(frame.height)
    given = read_probabilities(frame, reference)
    whole = ~np.isnan(given).any(axis=1)
    scores = np.zeros(frame.height)
    if whole.any():
        values = statistics.label_p_values(
            statistics.lac_scores(reference.calibration), reference.target, statistics.lac_scores(given[whole])
        )
        several = statistics.prediction_sets(values, error).sum(axis=1) > 1
        scores[whole] = np.where(several, np.sort(values, axis=1)[:, -2], 0.0)
    return scores


def score_width(
    frame: pl.DataFrame, requests: Sequence[Mapping[str, object]], reference: ReviewReference, error: float
) -> Floats:
    """[n] 1 - q / width of the answer's interval where it is wider than q, that of all but `error` of the test rows.

    Conformal intervals of normalized residuals are as wide as the expected error times one factor (Lei et al. 2018,
    section 5.2), which cancels.
    """
    scores = np.zeros(frame.height)
    answers = np.array([_number(score) for score in frame["score"]], dtype=np.float64)
    finite = np.isfinite(answers)
    if reference.spread is None or reference.spreads is None or reference.scale is None or not finite.any():
        return scores
    points = reference.scale.coordinates(*split_columns(requests, reference.scale))[finite]
    spread = np.maximum(reference.spread(points, answers[finite]), 0.0)
    limit = float(np.quantile(reference.spreads, 1 - error))
    beyond = (statistics.p_values(reference.spreads, spread) <= error) & (spread > limit)
    # Who is as wide as the widest that is let through is wide already.
    scores[np.flatnonzero(finite)[beyond]] = np.maximum(1 - limit / spread[beyond], 1e-6)
    return scores


def score_distance(requests: Sequence[Mapping[str, object]], reference: ReviewReference, limit: float) -> Floats:
    """[n] how far beyond the distance at which `limit` of the training rows lie, as 1 - that / its own; else 0."""
    if reference.known is None or reference.scale is None or not len(requests):
        return np.zeros(len(requests))
    points = reference.scale.coordinates(*split_columns(requests, reference.scale))
    distances = reference.known.distances(points)
    beyond = (reference.known.p_values(points) <= limit) & (distances > 0)
    scores = np.zeros(len(requests))
    scores[beyond] = 1 - np.minimum(1.0, reference.known.limit(limit) / distances[beyond])
    # As far as the farthest known row is far already.
    scores[beyond] = np.maximum(scores[beyond], 1e-6)
    return scores


def split_columns(
    requests: Sequence[Mapping[str, object]], scale: statistics.Scale
) -> tuple[dict[str, Floats], dict[str, list[str | None]]]:
    """The numbers and categories of requests, as `Scale.coordinates` takes them."""
    numbers = {name: np.array([_number(row.get(name)) for row in requests], dtype=np.float64) for name in scale.numbers}
    texts = {name: [_text(row.get(name)) for row in requests] for name in scale.categories}
    return numbers, texts


def score_disagreement(frame: pl.DataFrame, others: pl.DataFrame) -> Floats:
    """[n] the distance from the answer scored beside it (`others`: id, row, outputs, score).

    Another decision counts a half and more; the difference of the scores adds to it, for probabilities.
    """
    import polars as pl

    beside = others.unique(["id", "row"], keep="last", maintain_order=True)
    both = frame.select("id", "row", "outputs", "score").join(
        beside.select("id", "row", pl.col("outputs").alias("other"), pl.col("score").alias("other_score")),
        on=["id", "row"],
        how="left",
        maintain_order="left",
    )
    return np.array([_apart(row) for row in both.to_dicts()], dtype=np.float64)


def score_slices(requests: Sequence[Mapping[str, object]], conditions: Sequence[Node]) -> Floats:
    """[n] of the rows of watched slices.

    Raises:
        DefinitionError: a condition names a field that no request has.
    """
    import polars as pl

    matching = np.zeros(len(requests), dtype=bool)
    if conditions and len(requests):
        names = dict.fromkeys(name for row in requests for name in row)
        frame = pl.DataFrame({name: _column([row.get(name) for row in requests]) for name in names}, strict=False)
        for condition in conditions:
            matching |= _holds(condition, frame)
    return np.where(matching, _WATCHED, 0.0)


def parse_conditions(texts: Sequence[str]) -> list[Node]:
    """The watched slices as trees.

    Raises:
        DefinitionError: a text is no condition; names it.
    """
    from cumulant.features.definition.parsing import parse

    conditions = []
    for text in texts:
        try:
            conditions.append(parse(text))
        except DefinitionError as error:
            raise DefinitionError(
                f'monitoring.review.slices: "{text}": {error.message}', subject=text, hint=error.hint
            ) from None
    return conditions


def _holds(condition: Node, frame: pl.DataFrame) -> NDArray[np.bool_]:
    import polars as pl

    try:
        from cumulant.features.offline.polars_compiler import evaluate

        values = evaluate(condition, frame)
    except DefinitionError as error:
        raise DefinitionError(f"monitoring.review.slices: {error.message}", hint=error.hint) from None
    return np.asarray(values.fill_null(value=False).cast(pl.Boolean).to_numpy(), dtype=bool)


def _column(values: list[object]) -> list[object]:
    """Texts of numbers as numbers, where all are: a log that came from a CSV file has nothing but texts."""
    from cumulant.outcomes.labels.target_values import parse_number

    texts = [value for value in values if isinstance(value, str) and value]
    numbers = [parse_number(text) for text in texts]
    if not texts or any(number is None for number in numbers):
        return values
    return [parse_number(value) for value in values]


def _apart(row: Mapping[str, object]) -> float:
    if row["other"] is None:
        return 0.0

    output, other = (read_object(str(row[name])) for name in ("outputs", "other"))
    moved = abs(_number(row["score"]) - _number(row["other_score"]))
    near = moved if moved <= 1 else 0.0  # NaN, and differences of numbers that are no probabilities, do not count
    from cumulant.outcomes.join.prediction_losses import decision

    return 0.5 + near / 2 if decision(output) != decision(other) and "prediction" in output else near / 2


def _number(value: object) -> float:
    if value is None or isinstance(value, str | list | dict):
        return float("nan")
    return float(value)  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
