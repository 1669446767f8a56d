"""The part of a report that training and evaluation fill: the search, figures, slices, curves and the gate."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.masking import mask
from cumulant.core.plan import PredictAt
from cumulant.core.structs import struct_from
from cumulant.core.units import moment
from cumulant.flows.reports import wording
from cumulant.flows.reports.content import (
    BlendReport,
    CurveReport,
    FeatureReport,
    FoldReport,
    GateReport,
    Interval,
    MetricReport,
    Point,
    ReportData,
    RuleReport,
    SliceReport,
    TrainingReport,
    TrialReport,
)
from cumulant.flows.training.window_uses import percent
from cumulant.statistics.records import LEVEL

if TYPE_CHECKING:
    from cumulant.flows.registry.model_record import ModelRecord
    from cumulant.flows.training.evaluation_record import Judgement
    from cumulant.flows.training.fitted import Fitted, SplitSummary
    from cumulant.statistics import Estimate
    from cumulant.training.records import BlendSummary, Evaluation, FoldSummary, RuleVerdict

#: columns of a curve that are drawn: across, up, and the rows behind a point
_DRAWN = {
    "calibration": ("predicted", "observed", "rows"),
    "precision_recall": ("recall", "precision", None),
    "roc": ("false_positive_rate", "true_positive_rate", None),
}
_SPAN = re.compile(r"(\d{4}-\d\d-\d\d) to (\d{4}-\d\d-\d\d)")


def with_training(report: ReportData, record: ModelRecord, *, predict_at: PredictAt | None) -> ReportData:
    """`report` with how the model was found and how it did when it was trained."""
    from cumulant.features.definition.known_time import show_moment

    fitted, split = record.fitted, record.fitted.split
    notes = [f"test: {split.how}", *fitted.notes, *record.judgement.notes, *record.judgement.evaluation.notes]
    training = TrainingReport(
        task=fitted.summary.task,
        seconds=fitted.summary.seconds,
        trainer=fitted.summary.trainer,
        score=fitted.summary.score,
        scores=fitted.summary.scores,
        warnings=fitted.summary.warnings,
        target=record.training.target,
        predict_at="" if predict_at is None else show_moment(predict_at),
        rows=split.train,
        unlabelled=split.unlabelled,
        test_rows=split.test,
        classes=split.classes,
        score_name=fitted.summary.metric,
        higher_is_better=wording.higher_is_better(fitted.summary.metric),
        trials=trials(fitted),
        best=fitted.summary.best_trial,
        averaged=max(1, len(fitted.summary.chosen)),
        blend=_blend(fitted.summary.blend),
        folds=folds(fitted.summary.folds, split),
        notes=tuple(dict.fromkeys(notes)),
    )
    features = with_importance(report.features, fitted.summary.importance)
    report = msgspec.structs.replace(report, training=training, features=features)
    return with_judgement(report, record.judgement, subject=report.subject, tested=fitted.final is not None)


def _blend(tried: BlendSummary | None) -> BlendReport | None:
    if tried is None:
        return None
    weights = {member.trainer: member.weight for member in tried.members}
    return BlendReport(taken=tried.taken, weights=weights, gain=interval(tried.gain), best=tried.best)


def with_notes(report: ReportData, notes: Sequence[str]) -> ReportData:
    """`report` with those notes on its training that it lacks."""
    if report.training is None:
        return report
    together = tuple(dict.fromkeys((*report.training.notes, *notes)))
    return msgspec.structs.replace(report, training=msgspec.structs.replace(report.training, notes=together))


def with_judgement(report: ReportData, judgement: Judgement, *, subject: str, tested: bool) -> ReportData:
    """`report` with the figures of one evaluation, of the model or its `tested` one, and the gate's word on it."""
    evaluation = judgement.evaluation
    training = report.training
    if training is not None and training.test_rows != evaluation.rows:
        training = msgspec.structs.replace(training, test_rows=evaluation.rows)
    return msgspec.structs.replace(
        report,
        subject=subject,
        training=training,
        metrics=metrics(evaluation, judgement.naive),
        of_tested=tested,
        cluster=evaluation.cluster,
        clusters=evaluation.clusters,
        threshold=evaluation.threshold,
        alerts_a_day=alerts_a_day(evaluation),
        slices=slices(evaluation),
        curves=tuple(named_curves(evaluation).values()),
        gate=gate(judgement),
    )


def with_importance(features: tuple[FeatureReport, ...], importance: Mapping[str, float]) -> tuple[FeatureReport, ...]:
    """Features with their part of the model's importance; unchanged where the model provides none."""
    whole = sum(importance.values())
    if whole <= 0:
        return features
    return tuple(
        msgspec.structs.replace(feature, importance=importance.get(feature.name, 0.0) / whole) for feature in features
    )


def interval(estimate: Estimate) -> Interval | None:
    """An estimate with its interval; None where it is not defined."""
    return None if estimate.value is None else Interval(estimate.value, estimate.low, estimate.high)


def metrics(model: Evaluation, naive: Evaluation) -> tuple[MetricReport, ...]:
    """The figures that are defined, each beside the baseline's."""
    return tuple(
        MetricReport(
            name=name,
            model=shown,
            naive=interval(naive.metrics[name]) if name in naive.metrics else None,
            higher_is_better=wording.higher_is_better(name),
        )
        for name, estimate in model.metrics.items()
        if (shown := interval(estimate)) is not None
    )


def alerts_a_day(evaluation: Evaluation) -> float | None:
    """Labelled test rows at or above the threshold, a day; None where rows have no time, and in older records."""
    return evaluation.alerts / evaluation.days if evaluation.alerts is not None and evaluation.days else None


def without_personal_values(report: ReportData, personal: Collection[str], salt: bytes) -> ReportData:
    """`report` with the values of slices by a personal column as keyed hashes."""
    hidden = [
        msgspec.structs.replace(part, value=mask(part.value, salt)) if part.column in personal else part
        for part in report.slices
    ]
    return msgspec.structs.replace(report, slices=tuple(hidden))


def slices(evaluation: Evaluation) -> tuple[SliceReport, ...]:
    return tuple(
        SliceReport(column=part.column, value=part.value, rows=part.rows, metrics=_defined(part.metrics))
        for part in evaluation.slices
    )


def named_curves(evaluation: Evaluation) -> dict[str, CurveReport]:
    """The curves that the page draws, by the name that the evaluation has for them."""
    drawn = {}
    for name, (across, up, weight) in _DRAWN.items():
        if name not in evaluation.curves:
            continue
        columns = evaluation.curves[name].columns
        weights = columns[weight] if weight else [0.0] * len(columns[across])
        points = [Point(x, y, rows) for x, y, rows in zip(columns[across], columns[up], weights, strict=True)]
        kind = "predicted_observed" if evaluation.task == "regression" else name
        drawn[name] = CurveReport(kind=kind, points=tuple(points))
    return drawn


def gate(judgement: Judgement) -> GateReport:
    verdict, champion = judgement.verdict, judgement.champion_uri
    reference = f"the champion {champion}" if champion else "the naive baseline"
    if verdict.level > LEVEL:
        reference += f", with intervals at {percent(verdict.level)}: these test rows have judged other models"
    return GateReport(
        verdict=verdict.word,
        passed=verdict.passed,
        reference=reference,
        rules=tuple(_rule(rule) for rule in verdict.rules),
        warnings=verdict.warnings,
    )


def trials(fitted: Fitted) -> tuple[TrialReport, ...]:
    return tuple(
        struct_from(TrialReport, trial, settings={name: _setting(value) for name, value in trial.params.items()})
        for trial in fitted.trials
    )


def folds(summaries: tuple[FoldSummary, ...], split: SplitSummary) -> tuple[FoldReport, ...]:
    """The folds of the search and the test, with their times where the split is by time."""
    # Time spans begin with a year, so their order as text is their order in time.
    ordered = sorted(summaries, key=lambda fold: fold.text) if split.train_from else summaries
    return (*(_fold(number, fold, split) for number, fold in enumerate(ordered, 1)), _test(split))


def _fold(number: int, fold: FoldSummary, split: SplitSummary) -> FoldReport:
    span = _SPAN.fullmatch(fold.text)
    known = FoldReport(name=f"fold {number}", train_rows=fold.train, held_rows=fold.validate)
    if span is None or split.train_from is None:
        return known
    begin, end = moment(span[1]), moment(span[2])
    end = max(end, begin + timedelta(hours=1))
    return msgspec.structs.replace(
        known, train_from=split.train_from, train_to=max(begin, split.train_from), held_from=begin, held_to=end
    )


def _test(split: SplitSummary) -> FoldReport:
    return FoldReport(
        name="test",
        train_rows=split.train,
        held_rows=split.test,
        train_from=split.train_from,
        train_to=split.train_to,
        held_from=split.test_from,
        held_to=split.test_to,
    )


def _rule(rule: RuleVerdict) -> RuleReport:
    return struct_from(
        RuleReport,
        rule,
        text=f"{wording.title(rule.metric)}: {rule.rule}",
        difference=interval(rule.difference),
        value=interval(rule.candidate),
    )


def _defined(estimates: Mapping[str, Estimate]) -> dict[str, Interval]:
    return {name: shown for name, estimate in estimates.items() if (shown := interval(estimate)) is not None}


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
