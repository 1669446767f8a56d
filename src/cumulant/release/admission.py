"""The effect of the paired evaluation on a release: the margins it gets, and the reasons not to begin."""

from __future__ import annotations

import math

import msgspec

from cumulant.release.evidence.metrics import QUALITY_MARGIN, metrics
from cumulant.release.paired.paired_evaluation import (
    DISAGREEMENT_CAP,
    REFUSAL_ALPHA,
    disagreement_margin,
    distance_margin,
    log_gain,
    log_harm,
    prediction_margin,
    quality_margin,
    shown_better,
)
from cumulant.release.paired.paired_records import PairedEvaluation
from cumulant.release.paired.segments import broken_segment
from cumulant.release.policy import MetricPolicy, ReleasePolicy
from cumulant.release.wording import format_value

#: part of alpha of a metric whose margin nobody declared, against 1 for the others
UNDECLARED_PART = 0.5


class AdmissionRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a release does not begin, and what to declare where the change is meant. `metric`: what it is about."""

    metric: str
    text: str
    hint: str


def with_margins(policy: ReleasePolicy, evaluation: PairedEvaluation | None) -> ReleasePolicy:
    """The policy with margins of pairs and of `quality` where the project declares none.

    Where the versions were compared on labelled rows, a promotion waits until quality is shown, there or by labels of
    mirrored requests.
    """
    defaults: dict[str, float | None] = {"disagreement": DISAGREEMENT_CAP}
    if evaluation is not None:
        usual = metrics(policy)["quality"].margin
        defaults = {
            "disagreement": disagreement_margin(evaluation, better=_better(policy, evaluation)),
            "prediction": prediction_margin(evaluation),
            "distance": distance_margin(evaluation),
            "quality": None if usual is None else quality_margin(evaluation, most=usual),
        }
    declared_metrics = dict(policy.metrics)
    for name, margin in defaults.items():
        declared = policy.metrics.get(name)
        if margin is None or (declared is not None and declared.margin is not None):
            continue
        part = 1.0 if name == "quality" else UNDECLARED_PART
        declared_metrics[name] = msgspec.structs.replace(declared or MetricPolicy(part=part), margin=margin)
    quality = declared_metrics.get("quality", MetricPolicy())
    waits = evaluation is not None or policy.holdback is not None
    if waits and quality.required is None:
        declared_metrics["quality"] = msgspec.structs.replace(quality, required=True)
    return msgspec.structs.replace(policy, metrics=declared_metrics)


def refusal(policy: ReleasePolicy, evaluation: PairedEvaluation) -> AdmissionRefusal | None:
    """Why a release by the `policy`, as it is declared, may not begin; None: it may."""
    margin = metrics(with_margins(policy, evaluation))["quality"].margin
    return (
        _failed(evaluation)
        or _too_good(policy, evaluation)
        or _disagreeing(policy, evaluation)
        or (None if margin is None else _worse(evaluation, margin))
        or (None if margin is None else _broken(evaluation, margin))
        or _unlike(policy.metrics.get("distance"), evaluation)
    )


def refit_fault(evaluation: PairedEvaluation) -> AdmissionRefusal | None:
    """Why the served model is worse than, or differs from, its tested one (the `evaluation`'s champion); else None."""
    margin = quality_margin(evaluation, most=QUALITY_MARGIN)
    return _failed(evaluation) or _worse(evaluation, margin) or _broken(evaluation, margin) or _unlike(None, evaluation)


def _better(policy: ReleasePolicy, evaluation: PairedEvaluation) -> bool:
    """Whether the candidate is shown to be better, and not by so much that it may know what no request holds."""
    margin, least = metrics(policy)["quality"].margin, _least_loss(policy, evaluation)
    if margin is None or (least is not None and evaluation.candidate_loss < least):
        return False
    return shown_better(evaluation, margin=quality_margin(evaluation, most=margin))


def _failed(evaluation: PairedEvaluation) -> AdmissionRefusal | None:
    if not evaluation.failed:
        return None
    return AdmissionRefusal(
        metric="errors",
        text=f"the candidate has no answer to {evaluation.failed:,} of {evaluation.rows:,} labelled rows, which the"
        " champion answers",
        hint="look at these rows for values that the candidate has not learned from, such as a new category",
    )


def _disagreeing(policy: ReleasePolicy, evaluation: PairedEvaluation) -> AdmissionRefusal | None:
    declared = policy.metrics.get("disagreement")
    allowed = DISAGREEMENT_CAP
    if declared is not None and declared.margin is not None:
        allowed = metrics(policy)["disagreement"].margin or allowed
    elif _better(policy, evaluation):
        return None
    if evaluation.disagreement is None or evaluation.disagreement <= allowed:
        return None
    return AdmissionRefusal(
        metric="disagreement",
        text=f"the candidate decides otherwise than the champion in {format_value(evaluation.disagreement, '%')} of"
        f" {evaluation.rows:,} labelled rows, more than {format_value(allowed, '%')}",
        hint="where the change is meant, write release: {metrics: {disagreement: {margin: "
        f"{math.ceil(evaluation.disagreement * 120)}%}}}}}}",
    )


def _worse(evaluation: PairedEvaluation, margin: float) -> AdmissionRefusal | None:
    if log_harm(evaluation, margin=margin, edge=margin) < -math.log(REFUSAL_ALPHA):
        return None
    return AdmissionRefusal(
        metric="quality",
        text=f"{_losses(evaluation)}: worse by more than the margin {margin:.2g}",
        hint="where that is accepted, write release: {metrics: {quality: {margin: NUMBER}}}",
    )


def _broken(evaluation: PairedEvaluation, margin: float) -> AdmissionRefusal | None:
    segment = broken_segment(evaluation, margin=margin)
    if segment is None:
        return None
    return AdmissionRefusal(
        metric="quality",
        text=f"where {segment.feature} is {segment.value} ({segment.rows:,} labelled rows) the candidate's"
        f" {evaluation.loss} is {segment.candidate_loss:.4g}, the champion's {segment.champion_loss:.4g}",
        hint="compare both versions on these rows; where that is accepted, widen release.metrics.quality.margin",
    )


def _unlike(declared: MetricPolicy | None, evaluation: PairedEvaluation) -> AdmissionRefusal | None:
    segment = evaluation.unlike
    if segment is None or (declared is not None and declared.margin is not None):
        return None
    return AdmissionRefusal(
        metric="distance",
        text=f"where {segment.feature} is {segment.value} ({segment.rows:,} labelled rows) the candidate's scores have"
        " nothing to do with the champion's",
        hint="compare both versions on these rows; where the change is meant, declare how far scores may lie apart:"
        " release: {metrics: {distance: {margin: NUMBER}}}",
    )


def _least_loss(policy: ReleasePolicy, evaluation: PairedEvaluation) -> float | None:
    """The loss below which a candidate is too good to be true; None where nothing says how much can be known."""
    usual = evaluation.usual_loss
    if usual is None and evaluation.champion_loss >= evaluation.baseline_loss:
        return None
    reference = evaluation.champion_loss if usual is None else min(usual, evaluation.champion_loss)
    return (1 - policy.largest_gain) * reference


def _too_good(policy: ReleasePolicy, evaluation: PairedEvaluation) -> AdmissionRefusal | None:
    least = _least_loss(policy, evaluation)
    if not least or log_gain(evaluation, edge=evaluation.champion_loss - least) < -math.log(REFUSAL_ALPHA):
        return None
    return AdmissionRefusal(
        metric="quality",
        text=f"{_losses(evaluation)}: so much better that it may know what no request holds",
        hint="look for inputs that become known after the prediction (`cumulant report` lists the most important ones);"
        " where the gain is real, write release: {evaluation: {gain: 100%}}",
    )


def _losses(evaluation: PairedEvaluation) -> str:
    return (
        f"the candidate's {evaluation.loss} on {evaluation.rows:,} labelled rows is {evaluation.candidate_loss:.4g},"
        f" the champion's {evaluation.champion_loss:.4g}"
    )
