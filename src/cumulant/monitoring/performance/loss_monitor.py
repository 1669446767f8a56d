"""Harm: loss above what a recent refit would reach, lost skill or lost calibration, tested sequentially by window.

Three questions compare the model with something that meets the same rows, so that noisier outcomes are no harm:

- `refit`: does it lose more than a model fitted a short while ago?
- `calibration`: does it lose more than its own scores, recalibrated on the windows before?
- `skill`: does it lose more than the window's own base rate and the reference's skill predict?

Each is a mean of blocks under a sequential test (`statistics.sequential.student`), and they share one alpha. Several
classes have no `calibration` and no kind of change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

import msgspec
import numpy as np

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.baselines import QUESTIONS, Baseline, HarmPolicy
from cumulant.monitoring.performance.blocks import base_loss, block_codes, loss_of, means_by
from cumulant.monitoring.performance.kinds import Kind, Moved, Question, kind_of, moved
from cumulant.monitoring.performance.recalibration import (
    CalibrationSums,
    apply_calibration,
    combine_sums,
    learn_calibration,
    sum_window,
)
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow, check_task
from cumulant.statistics import Word
from cumulant.statistics.rows import Floats
from cumulant.statistics.sequential.dependence import Dependence, allowance
from cumulant.statistics.sequential.student import Risen

COMPARED_WITH: dict[Question, str] = {
    "refit": "what the model retrained on recent rows would lose",
    "calibration": "what its own scores would lose if they were calibrated anew",
    "skill": "a model with its skill on the reference would lose at this base rate",
}


class LossFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one question.

    excess, low, high: mean loss above the comparison, since `since` where the word is `worse`, else over the recent
    windows; the interval is not corrected for repeated looks. evidence reaches `bar` when proven. sentence: with the
    time; change: without it, where the word is `worse`. at_least: it may have begun before `since`, the oldest window
    that is kept.
    """

    question: Question
    word: Word
    excess: float | None
    low: float | None
    high: float | None
    evidence: float
    bar: float
    since: datetime | None
    sentence: str
    change: str = ""
    at_least: bool = False


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """The harm after a window. `word` is `worse` where any question's is; only that is harm."""

    window: PredictionWindow
    word: Word
    kind: Kind | None
    findings: tuple[LossFinding, ...]
    moved: Moved | None
    sentence: str


@dataclass(frozen=True)
class ExcessLossTest:
    """One question over time: has the excess risen above the margin, is it below the margin, is it below 0."""

    worse: Risen
    fine: Risen
    better: Risen

    def add(self, excess: Floats, risen: Floats, margin: float) -> ExcessLossTest:
        """With the excess [blocks] of one more window, which may have none; `risen`: what of it is not of old."""
        values = (risen - margin, margin - excess, -excess)
        pairs = zip((self.worse, self.fine, self.better), values, strict=True)
        return ExcessLossTest(*(test.add(value) for test, value in pairs))


@dataclass(frozen=True, kw_only=True)
class LossMonitor:
    """The state of the tests between two windows: sums only, no rows. `to_json` stores it.

    bar: the evidence of one question, as a natural logarithm, from which it is answered.
    proven: the questions whose harm is proven while the recent windows lose more than the margin.
    """

    policy: HarmPolicy
    bar: float
    baseline: Baseline
    answers: Mapping[Question, ExcessLossTest]
    pasts: tuple[CalibrationSums, ...]
    starts: tuple[datetime, ...]
    looks: int
    proven: tuple[Question, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain numbers, texts and lists."""
        sides = {name: [r.to_json() for r in (a.worse, a.fine, a.better)] for name, a in self.answers.items()}
        plain = {"terms": self.policy, "baseline": self.baseline, "pasts": self.pasts, "starts": self.starts}
        return {
            "looks": self.looks,
            "bar": self.bar,
            "proven": list(self.proven),
            "answers": sides,
            **cast("dict[str, object]", msgspec.to_builtins(plain)),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> LossMonitor:
        """What `to_json` wrote; earlier versions stored alpha, and not the bar that follows from it."""
        sides = cast("Mapping[Question, list[Mapping[str, object]]]", stored["answers"])
        policy, bar = msgspec.convert(stored["terms"], HarmPolicy), stored.get("bar")
        if bar is None:
            bar = math.log(len(policy.questions) / cast("Mapping[str, float]", stored["terms"])["alpha"])
        return cls(
            policy=policy,
            bar=cast("float", bar),
            baseline=msgspec.convert(stored["baseline"], Baseline),
            answers={
                name: ExcessLossTest(*(Risen.from_json(state) for state in three)) for name, three in sides.items()
            },
            pasts=msgspec.convert(stored["pasts"], tuple[CalibrationSums, ...]),
            starts=msgspec.convert(stored["starts"], tuple[datetime, ...]),
            looks=cast("int", stored["looks"]),
            proven=msgspec.convert(stored["proven"], tuple[Question, ...]),
        )


def begin_monitor(reference: Baseline, policy: HarmPolicy, *, alpha: float = 0.05) -> LossMonitor:
    """A monitor without windows, for a newly served model.

    Args:
        reference: in windows of the length of those to come.
        policy: what counts as harm.
        alpha: chance of any false alarm within `policy.horizon` windows, shared over the questions.

    Raises:
        DataError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise DataError("harm needs an alpha between 0 and 1", subject="harm")
    questions, recent = policy.questions, policy.recent
    begun: dict[Dependence, ExcessLossTest] = {}
    answers = {}
    for question in questions:
        shape, each = reference.shapes.get(question, Dependence()), alpha / len(questions)
        if shape not in begun:
            # What of later evidence is chance where windows are like the reference's.
            rise = allowance(shape, horizon=policy.horizon, recent=recent, alpha=each, falling=False).risen
            fall = allowance(shape, horizon=policy.horizon, recent=recent, alpha=each, falling=True).recent
            falling = Risen.start(horizon=policy.horizon, allowed=fall)
            begun[shape] = ExcessLossTest(Risen.start(horizon=policy.horizon, allowed=rise), falling, falling)
        answers[question] = begun[shape]
    bar = math.log(len(questions) / alpha)
    return LossMonitor(policy=policy, bar=bar, baseline=reference, answers=answers, pasts=(), starts=(), looks=0)


def add_window(
    monitor: LossMonitor, window: PredictionWindow, part: PredictionRows, refit: Floats | None = None
) -> tuple[LossMonitor, Harm]:
    """The monitor after one more window, and its result.

    Args:
        monitor: after the windows before.
        window: its time; each window once, in order.
        part: its predictions with labels that are due; others are left out.
        refit: [n] scores of the same rows by a model fitted on earlier rows; None: there is none yet.

    Raises:
        DataError: the window is not later than the last, no row has a label, or `refit` is not one score a row.
    """
    _checked(monitor, window, part, refit)
    known, policy = part.where(part.labelled), monitor.policy
    excess, risen, here = _excess(monitor, known, None if refit is None else refit[part.labelled])
    margin, none = policy.margin * monitor.baseline.loss, np.zeros(0)
    answers = {
        question: test.add(
            _values(monitor, question, excess.get(question, none)),
            _values(monitor, question, risen.get(question, none)),
            margin,
        )
        for question, test in monitor.answers.items()
    }
    after = replace(
        monitor,
        answers=answers,
        pasts=(*monitor.pasts, here)[-policy.recent :],
        starts=(*monitor.starts, window.start)[-policy.horizon :],
        looks=monitor.looks + 1,
    )
    after = replace(after, proven=_proven(after))
    return after, _harm_after(after, window)


def _values(monitor: LossMonitor, question: Question, blocks: Floats) -> Floats:
    """The excess of a window's blocks; their mean where those of a window vary together."""
    shape = monitor.baseline.shapes.get(question, Dependence())
    return np.array([blocks.mean()]) if shape.whole and len(blocks) else blocks


def _checked(monitor: LossMonitor, window: PredictionWindow, part: PredictionRows, refit: Floats | None) -> None:
    if monitor.starts and window.start <= monitor.starts[-1]:
        raise DataError(
            f"the window from {window.start:%Y-%m-%d %H:%M} does not come after the last, "
            f"which began {monitor.starts[-1]:%Y-%m-%d %H:%M}",
            subject="window",
            hint="each window is evaluated once, in order; a window evaluated twice counts twice",
        )
    if not part.labelled.any():
        raise DataError(
            f"none of {len(part)} predictions has a label", subject="truth", hint="wait for labels, or estimate"
        )
    check_task(part, monitor.baseline.task)
    if refit is not None and (refit.shape != part.score.shape or not np.isfinite(refit[part.labelled]).all()):
        raise DataError(f"a refit gives a finite score for each of {len(part)} rows", subject="refit")


def _excess(
    monitor: LossMonitor, known: PredictionRows, refit: Floats | None
) -> tuple[dict[Question, Floats], dict[Question, Floats], CalibrationSums]:
    """Of each question the excess loss [blocks], its rise since the reference, and the sums of the window.

    Scores are also compared as the reference would calibrate them: miscalibration that it had already is no harm.
    """
    policy, reference = monitor.policy, monitor.baseline
    means = means_by(block_codes(known, policy.block), known.weight)

    def lost(score: Floats) -> Floats:
        return means(loss_of(policy.loss, known.truth, score))

    classes = known.score.shape[1] if known.several else None
    served, base = lost(known.score), means(base_loss(policy.loss, known.truth, known.weight, classes))
    # The reference's skill is itself an estimate: two standard errors of it are allowed for.
    due = (reference.ratio + 2 * reference.ratio_error) * base
    bars, own = {"skill": due}, served
    if policy.calibration:
        of_old = learn_calibration(reference.task, reference.past)
        if policy.reference_calibration:
            own = np.minimum(served, lost(apply_calibration(reference.task, of_old, known.score)))
        anew = learn_calibration(reference.task, combine_sums(monitor.pasts)) if monitor.pasts else of_old
        bars["calibration"] = lost(apply_calibration(reference.task, anew, known.score))
    if refit is not None:
        bars["refit"] = lost(refit)
    compared = [question for question in QUESTIONS if question in bars]
    excess = {question: served - bars[question] for question in compared}
    risen = {question: (served if question == "skill" else own) - bars[question] for question in compared}
    return excess, risen, sum_window(reference.task, known.truth, known.score, known.weight, means(known.truth))


def _proven(monitor: LossMonitor) -> tuple[Question, ...]:
    """A proof does not lapse when the next window is a little better; it ends when the recent ones are."""
    recent, bar = monitor.policy.recent, monitor.bar
    return tuple(
        question
        for question, test in monitor.answers.items()
        if test.worse.mean_since(max(0, test.worse.looks - recent)) > 0
        and (question in monitor.proven or test.worse.log_evidence() >= bar)
    )


def _harm_after(monitor: LossMonitor, window: PredictionWindow) -> Harm:
    findings = tuple(_finding(monitor, question) for question in monitor.policy.questions)
    words: dict[Question, Word] = {finding.question: finding.word for finding in findings}
    change = moved(
        monitor.baseline.task, monitor.baseline.past, _since_change(monitor, findings), monitor.baseline.rate
    )
    word, excess = _overall(words), {finding.question: finding.excess for finding in findings}
    return Harm(
        window=window,
        word=word,
        kind=None if monitor.baseline.task == "multiclass" else kind_of(words, excess, change),
        findings=findings,
        moved=change,
        sentence=" ".join(finding.sentence for finding in findings if finding.word == word) or "Nothing is known yet.",
    )


def _since_change(monitor: LossMonitor, findings: tuple[LossFinding, ...]) -> CalibrationSums:
    """The recent windows, of these only those since the change, so that what was before does not blur it."""
    changed = [finding.since for finding in findings if finding.since is not None]
    starts = monitor.starts[-len(monitor.pasts) :]
    pairs = list(zip(starts, monitor.pasts, strict=True))
    recent = [past for start, past in pairs if not changed or start >= min(changed)]
    return combine_sums(recent or monitor.pasts[-1:])


def _overall(words: Mapping[Question, Word]) -> Word:
    """Any harm is harm. That calibrating anew would do damage is no improvement, only a calibration that holds."""
    if "worse" in words.values():
        return "worse"
    if "cannot_tell" in words.values():
        return "cannot_tell"
    return "better" if "better" in (words.get("refit"), words["skill"]) else "not_worse"


def _finding(monitor: LossMonitor, question: Question) -> LossFinding:
    test, policy = monitor.answers[question], monitor.policy
    margin, bar = policy.margin * monitor.baseline.loss, monitor.bar
    first = max(0, test.worse.looks - policy.recent)
    word: Word = "cannot_tell"
    # Continuing harm comes first: one good day among bad ones changes nothing yet.
    if question in monitor.proven:
        word = "worse"
    elif test.better.recent(policy.recent) >= bar:
        word = "better"
    elif test.fine.recent(policy.recent) >= bar:
        word = "not_worse"
    change = test.worse.since()
    look = first if word != "worse" or change is None else change
    risen = test.worse.mean_since(look) + margin
    excess = risen if word == "worse" else margin - test.fine.mean_since(look)
    radius = (test.worse if word == "worse" else test.fine).radius_since(look)
    since = monitor.starts[look - (test.worse.looks - len(monitor.starts))] if monitor.starts else None
    known = not math.isnan(excess)
    sure = known and not math.isnan(radius)
    oldest = monitor.answers[policy.questions[0]].worse.looks - len(monitor.starts)
    text = _change(question, excess, monitor.baseline) if word == "worse" else ""
    at_least = word == "worse" and since is not None and look <= oldest
    return LossFinding(
        question=question,
        word=word,
        excess=excess if known else None,
        low=excess - radius if sure else None,
        high=excess + radius if sure else None,
        evidence=test.worse.log_evidence(),
        bar=bar,
        since=since if word == "worse" else None,
        sentence=f"{_since(since, at_least=at_least)} {text}."
        if text
        else _sentence(question, word, excess, monitor.baseline),
        change=text,
        at_least=at_least,
    )


def _since(since: datetime | None, *, at_least: bool) -> str:
    return "" if since is None else f"{'At least since' if at_least else 'Since'} {since:%Y-%m-%d %H:%M} UTC"


def _change(question: Question, excess: float, reference: Baseline) -> str:
    return f"the model loses {_size(excess, reference)} more than {COMPARED_WITH[question]}"


def _size(excess: float, reference: Baseline) -> str:
    return f"{abs(excess):.3g} ({abs(excess) / reference.loss:.0%} of the reference's loss)"


def _sentence(question: Question, word: Word, excess: float, reference: Baseline) -> str:
    if word == "cannot_tell":
        old = ""
        if question != "skill" and excess > 0 and reference.miscalibration >= excess / 2:
            lost = f"{reference.miscalibration:.3g}"
            old = f"Calibrated anew the model would have lost {lost} less on the reference already: that is not new. "
        return f"{old}Whether the model loses more than {COMPARED_WITH[question]} is not known yet."
    if word == "better":
        return f"The model loses {_size(excess, reference)} less than {COMPARED_WITH[question]}."
    return f"The model loses not more than {COMPARED_WITH[question]}, within the margin."
