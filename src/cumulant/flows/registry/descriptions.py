"""Texts of a training in the registry: the run's name, and short descriptions in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.flows.reports import wording
from cumulant.flows.reports.content import Interval
from cumulant.ports.registry import About, Dataset

if TYPE_CHECKING:
    from cumulant.flows.registry.candidate_alias import ModelCandidate
    from cumulant.project.project import Project
    from cumulant.statistics import Estimate

_SHORT = {
    "average_precision": "AP",
    "roc_auc": "AUC",
    "calibration_error": "calibration",
    "log_loss": "log loss",
    "mae": "MAE",
    "rmse": "RMSE",
    "brier": "Brier",
}
#: characters of the purpose in a description
_PURPOSE = 400


def run_name(candidate: ModelCandidate) -> str:
    """The name of a run in a list: trainer, main figure, and the gate's answer where it refused."""
    name = main_metric(candidate)
    figure = wording.number(_figure(candidate, name).value)
    refused = ", refused" if candidate.word == "refused" else ""
    # The figure before its name: MLflow's list shows some eighteen characters.
    return f"{candidate.fitted.summary.trainer} {figure} {_SHORT.get(name, name.replace('_', ' '))}{refused}"


def main_metric(candidate: ModelCandidate) -> str:
    """The figure that the gate's first rule is about, else the one searched for."""
    rules = candidate.judgement.verdict.rules
    measured = candidate.judgement.evaluation.metrics
    return next((rule.metric for rule in rules if rule.metric in measured), candidate.fitted.summary.metric)


def run_text(project: Project, candidate: ModelCandidate) -> str:
    """The description of a run and of the version that it registers."""
    return "\n\n".join([_verdict(candidate), _table(candidate), _version_content(candidate), _purpose(project)]).strip()


def about(project: Project, candidate: ModelCandidate) -> About:
    """The descriptions of the version, and of the model as a whole."""
    name = project.name
    serve = f"Serve it: `cumulant serve models:/{name}@champion`"
    load = f'in Python: `mlflow.pyfunc.load_model("models:/{name}@champion")`'
    model = [f"Answers `{candidate.work.training.target}`.", _purpose(project), f"{serve}; {load}."]
    return About(version=run_text(project, candidate), model="\n\n".join(filter(None, model)))


def dataset_of(project: Project, candidate: ModelCandidate, source: str) -> Dataset:
    """A source's snapshot as the run's data; rows are those that passed its contract."""
    snapshot, work = candidate.work.snapshots[source], candidate.work
    declared = project.policies.sources.get(source)
    return Dataset(
        name=source,
        digest=snapshot.id,
        source=project.vault.redact((declared.spec.stream or declared.spec.path) if declared else "") or source,
        rows=snapshot.rows_passed,
        fields={field.name: field.dtype for field in snapshot.fields},
        use="training" if source == work.task.entity else "lookup",
    )


def _verdict(candidate: ModelCandidate) -> str:
    verdict = candidate.judgement.verdict
    word = wording.gate_word(verdict.word, passed=verdict.passed)
    champion = candidate.judgement.champion_uri
    against = "" if not verdict.passed else f" against {f'`{champion}`' if champion else 'the naive baseline'}"
    rules = "\n".join(f"- {'passed' if rule.passed else '**refused**'}: {rule.text}" for rule in verdict.rules)
    warnings = "".join(f"- warning: {warning}\n" for warning in verdict.warnings)
    return f"**Gate: {word}**{against}\n\n{warnings}{rules}"


def _table(candidate: ModelCandidate) -> str:
    main, naive = main_metric(candidate), candidate.judgement.naive.metrics
    names = list(dict.fromkeys([main, *(rule.metric for rule in candidate.judgement.verdict.rules)]))
    rows = [
        f"| {wording.title(name)} | {_estimate_text(_figure(candidate, name))} | "
        f"{_estimate_text(naive[name]) if name in naive else '–'} |"
        for name in names
        if name in candidate.judgement.evaluation.metrics
    ]
    tested = f"{candidate.judgement.evaluation.rows:,} test rows"
    return "\n".join([f"| on {tested} | model (95% interval) | naive |", "|---|---|---|", *rows])


def _version_content(candidate: ModelCandidate) -> str:
    summary, work = candidate.fitted.summary, candidate.work
    as_of = f", as known on {wording.instant(work.as_of)}" if work.as_of else ""
    accepted = wording.moment(work.snapshot.accepted)
    return (
        f"Target `{work.training.target}`. {summary.made_by} with {summary.features} features, "
        f"{wording.plural(summary.trials, 'trial')}, learned from {candidate.fitted.rows:,} rows of "
        f"`{work.task.entity}` (snapshot of {accepted}{as_of})."
    )


def _purpose(project: Project) -> str:
    model = project.policies.model
    owner = f"Owner: {model.owner}." if model.owner else ""
    purpose = model.purpose[:_PURPOSE].rstrip()
    purpose += "." if purpose and purpose[-1].isalnum() else ""
    return " ".join(filter(None, [purpose, owner]))


def _figure(candidate: ModelCandidate, name: str) -> Estimate:
    return candidate.judgement.evaluation.metrics[name]


def _estimate_text(estimate: Estimate) -> str:
    value = estimate.value
    return wording.figure(None if value is None else Interval(value, estimate.low, estimate.high))
