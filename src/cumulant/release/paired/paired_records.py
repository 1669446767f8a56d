"""What `paired_evaluation` and `paired_rows` compare, as plain data in a release's row. Reading it needs no numpy."""

from __future__ import annotations

from datetime import datetime

import msgspec


class DayDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One block of rows, a day where rows have a time: rows that both versions scored, and what they lost by.

    `difference`: mean loss of the candidate less that of the champion.
    """

    rows: int
    difference: float
    start: datetime | None = None


class SegmentDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one value (or range) of a feature; `low`: simultaneous lower limit of the difference of mean losses."""

    feature: str
    value: str
    rows: int
    champion_loss: float
    candidate_loss: float
    low: float


class PairedEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Both versions on the same labelled rows. Losses are what the release's `quality` compares.

    Attributes:
        rows: rows that both versions scored; of them `failed` have no finite answer of the candidate, and count in
            nothing else.
        first, last: moments of prediction of the oldest and the newest row; None where rows have none.
        loss: name of the loss, such as `brier`.
        days: blocks in order of time; a day each where rows have a time, else runs of neighbouring rows.
        baseline_loss: mean loss of the constant answer that suits these rows best.
        usual_loss: the champion's in the evaluation of its own training; None where that is not known.
        deviation, skewness: of single rows' differences of losses.
        disagreement: share of rows with another decision, with its upper limit; None where answers are numbers.
        shift, shift_high: mean difference of scores, and the upper limit of its absolute value.
        distance, distance_high: mean absolute difference of scores, and its upper limit. Upper limits are those of one
            more day (95%): a release sees a few hours.
        segments: those in which the candidate loses most, the worst first.
        unlike: a segment in which the candidate's scores have nothing to do with the champion's.
        seen_by: arms that may have learned from these rows, whose loss then looks too small: nothing that would speak
            for such an arm is taken from them.
    """

    rows: int
    failed: int = 0
    first: datetime | None = None
    last: datetime | None = None
    loss: str
    days: tuple[DayDifference, ...]
    champion_loss: float
    candidate_loss: float
    baseline_loss: float
    usual_loss: float | None = None
    deviation: float
    skewness: float
    disagreement: float | None = None
    disagreement_high: float | None = None
    champion_score: float
    candidate_score: float
    shift: float
    shift_high: float
    distance: float
    distance_high: float
    segments: tuple[SegmentDifference, ...] = ()
    unlike: SegmentDifference | None = None
    seen_by: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        return self.candidate_loss - self.champion_loss
