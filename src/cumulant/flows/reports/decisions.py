"""Texts on the search's result and on the decisions at the threshold, for every rendering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cumulant.flows.reports import wording
from cumulant.flows.reports.content import BlendReport, ReportData, TrainingReport, TrialReport
from cumulant.training.spec import SEARCHED

_SHARES = {"precision": "of the alerts are right", "recall": "of the positives are alerts"}
_BASELINE = "naive"


def decisions(report: ReportData) -> Iterator[tuple[str, str, str]]:
    """Title, figure and note of each: the threshold, alerts per day, precision, recall; nothing without a threshold."""
    if report.threshold is None:
        return
    yield "Threshold", wording.number(report.threshold), report.serving.threshold_text if report.serving else ""
    if report.alerts_a_day is not None:
        counted = "labelled test rows at or above the threshold"
        if report.training is not None and report.training.unlabelled:
            counted += "; rows without a label are not counted"
        digits = ",.0f" if report.alerts_a_day >= 100 else ".3g"
        yield "Alerts per day", f"{report.alerts_a_day:{digits}}", counted
    figures = {metric.name: metric.model for metric in report.metrics}
    for name, note in _SHARES.items():
        if (measured := figures.get(name)) is not None:
            ends = f"; {wording.interval(measured)}" if measured.low is not None else ""
            yield wording.title(name), wording.number(measured.value), note + ends


def search_summary(training: TrainingReport) -> str:
    """How many trials there were, which trainer was chosen by which score, and the best score of each other one."""
    if not training.trials:
        return "No search: the trainer's own settings."
    return f"{trials_text(training.trials).capitalize()}.{_choice(training)}"


#: why a blend with a worse score than one trainer alone can be better
_FLATTERED = " (a trainer's score flatters it, the more trials it had)"


def trials_text(trials: Sequence[TrialReport]) -> str:
    """How many sets of parameters were tried of each searched trainer, and which others were fitted as they are."""
    counts = Counter(trial.trainer for trial in trials if trial.trainer in SEARCHED)
    pruned = sum(trial.state == "pruned" for trial in trials)
    parts = [f"{wording.plural(count, 'trial')} of {name}" for name, count in counts.items()] or ["no trials"]
    parts += [f"{pruned} of them stopped early"] if pruned else []
    cut = sum(trial.state == "cut" for trial in trials if trial.trainer in SEARCHED)
    parts += [f"{cut} of them cut off by the time"] if cut else []
    whole = {trial.trainer: trial.state != "cut" for trial in trials if trial.trainer not in SEARCHED}
    others = [name if done else f"{name} (cut off by the time, so not fitted)" for name, done in whole.items()]
    text = ", ".join(parts)
    return f"{text}; without a search: {', '.join(others)}" if others else text


def _choice(training: TrainingReport) -> str:
    """The chosen trainer with its score; the baseline is no rival, and may score better than all."""
    if not training.trainer or training.score is None:
        return ""
    name = wording.title(training.score_name or "score").lower()
    blend = training.blend
    text = f" {training.trainer} was chosen: its mean {name} over the folds is {wording.number(training.score)}"
    if blend is not None and blend.taken:
        text = f" A{blend.text[1:]} was chosen: its mean {name} over the folds is {wording.number(training.score)}"
        text += f", by weights fitted on the other folds; it is better than {blend.best} alone by {_gain(blend)}"
        text += _FLATTERED if any(trial.tuned for trial in training.trials) else ""
    elif training.averaged > 1:
        text += f", as the average of {training.averaged} trials"
    others = {key: score for key, score in training.scores.items() if key not in (training.trainer, _BASELINE)}
    if others:
        shown = ", ".join(f"{key} {wording.number(score)}" for key, score in others.items())
        text += f"; the best of other trainers: {shown}"
    baseline = training.scores.get(_BASELINE)
    if baseline is not None and training.trainer != _BASELINE:
        text += f"; the naive baseline: {wording.number(baseline)}"
    if blend is not None and not blend.taken:
        text += f"; {blend.text} was not chosen: it is not better beyond noise, {_gain(blend)}"
    return f"{text}."


def _gain(blend: BlendReport) -> str:
    if blend.gain is None:
        return "an amount that these rows do not show"
    ends = f" (95% interval {wording.interval(blend.gain)})" if blend.gain.low is not None else ", without an interval"
    return f"{wording.number(blend.gain.value)}{ends}"
