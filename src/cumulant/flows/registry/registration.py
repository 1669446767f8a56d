"""The step `register`: the run with its trials in the registry, and a version that carries the servable."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError
from cumulant.core.ids import digest
from cumulant.flows.deployment.deployment import uses_releases
from cumulant.flows.registry import descriptions
from cumulant.flows.registry.models import CANDIDATE, CHAMPION, ModelAliased
from cumulant.flows.training.evaluation import champion_version
from cumulant.flows.training.package_step import input_example
from cumulant.flows.training.search_step import rows_of
from cumulant.ports.registry import ModelVersion, Origin

if TYPE_CHECKING:
    import pandas as pd

    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.registry.candidate_alias import ModelCandidate
    from cumulant.ports.journal import Transaction
    from cumulant.ports.registry import RunLog


def register(context: Context, candidate: ModelCandidate, *, promote: bool) -> tuple[ModelVersion, bool]:
    """Log and register the candidate, and set its aliases by the verdict; returns also whether it existed.

    A version that the gate refused gets no alias, nor does the champion made again. With `promote`, a candidate that
    passed becomes the champion, unless the project delivers through releases and has a champion, or requires an
    approval first.
    """
    verdict = candidate.judgement.verdict
    key = digest([candidate.package.servable.key, candidate.work.identity, verdict.passed])
    inputs = {"key": key, "judgement": digest(verdict), "model": candidate.fitted.model.key}

    def log() -> dict[str, object]:
        version = _log(context, candidate, key)
        if verdict.passed and not candidate.same:  # a release would compare the champion with itself
            _point(context, version, CANDIDATE)
        if promote and verdict.passed and _may_lead(context, candidate, version):
            _point(context, version, CHAMPION)
        return {"name": version.name, "version": version.version}

    def record(transaction: Transaction, result: dict[str, object]) -> None:
        candidate.record_in(transaction, context, f"{result['name']}/{result['version']}")

    # In this process: it writes to the registry only, where it takes less than a process needs to start, and reads the
    # code's commit, which is in the project's folder.
    # Only a version that has its record counts as registered: cut off before, the same version is found and recorded.
    outcome = context.step(
        "register", inputs, log, verify=lambda result: _exists(context, result, candidate), write=record
    )
    name, number = str(outcome.result["name"]), str(outcome.result["version"])
    return context.project.registry().resolve(f"{name}/{number}"), outcome.reused


def _may_lead(context: Context, candidate: ModelCandidate, version: ModelVersion) -> bool:
    """Whether no approval or release comes first, and the champion is still the one it was measured against."""
    if context.project.policies.release.approval is not None:
        return False
    present = champion_version(context)
    if present in (None, version.version):
        return True
    if uses_releases(context.project) or candidate.same:
        return False
    measured = candidate.judgement.champion_uri is not None and candidate.reference is not None
    return measured and candidate.reference is not None and present == candidate.reference.version


def _exists(context: Context, result: Mapping[str, object], candidate: ModelCandidate) -> bool:
    """Whether the version stands, and is of this work: a registry that was replaced may hold another of its number."""
    try:
        version = context.project.registry().resolve(f"{result['name']}/{result['version']}")
    except NotFoundError:
        return False
    return version.tags.get("cumulant.servable") == candidate.package.servable.key


def _log(context: Context, candidate: ModelCandidate, key: str) -> ModelVersion:
    project, registry = context.project, context.project.registry()
    with registry.run(project.name, descriptions.run_name(candidate), key=key, origin=_origin(context)) as run:
        run.describe(descriptions.run_text(project, candidate))
        for source in candidate.table.sources:
            run.dataset(descriptions.dataset_of(project, candidate, source))
        run.params(candidate.params())
        run.metrics(candidate.metrics())
        run.tags({"cumulant.run": context.run, "cumulant.verdict": candidate.word})
        _trials(context, candidate, run)
        from cumulant.flows.reports.registry_plots import save_plots

        with tempfile.TemporaryDirectory() as scratch:
            for path in save_plots(candidate.judgement.evaluation, Path(scratch), title=project.name):
                run.artifact(path, "plots")
        with project.objects().open(candidate.package.servable.key) as folder:
            return registry.register(
                run,
                project.name,
                folder,
                _input_example(context, candidate),
                tags=candidate.tags(context),
                key=key,
                about=descriptions.about(project, candidate),
            )


def _origin(context: Context) -> Origin:
    commit = context.project.code.commit or ""
    user = context.principal.id.removeprefix("user:")
    return Origin(user=user, command="cumulant train", begun=context.begun, commit=commit)


def _trials(context: Context, candidate: ModelCandidate, run: RunLog) -> None:
    """A child run a trial. Records tell how long a trial took; they are laid end to end from the run's begin."""
    metric, begun = candidate.fitted.summary.metric, context.begun
    for trial in candidate.fitted.trials:
        name = f"trial {trial.number} {trial.trainer}"
        with run.child(name, begun=begun, seconds=trial.seconds) as child:
            child.params({"trainer": trial.trainer, **trial.params})
            score = {} if trial.score is None else {metric: trial.score}
            child.metrics({**score, "seconds": trial.seconds})
            child.tags({"state": trial.state})
        begun += timedelta(seconds=trial.seconds)


def _point(context: Context, version: ModelVersion, alias: str) -> None:
    context.project.registry().alias(version.name, alias, version.version)
    context.emit(ModelAliased(model=version.name, alias=alias, version=version.version))


def _input_example(context: Context, candidate: ModelCandidate) -> pd.DataFrame:
    """That of the rows that were packaged: all rows are read for it only where the package was found done."""
    if candidate.example is not None:
        return candidate.example
    return input_example(context, candidate.work, rows_of(context, candidate.work).test.features)
