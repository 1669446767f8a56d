"""The flow `train`: from sources to a judged, packaged and registered model version."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.ids import digest
from cumulant.core.progress import Progress, silent
from cumulant.core.refs import ObjectRef
from cumulant.core.servable import Parity
from cumulant.core.units import duration, show_duration
from cumulant.flows.data.request_rules import unchecked_notes
from cumulant.flows.data.validate import Validation, snapshots_of
from cumulant.flows.deployment.deployment import uses_releases, was_served
from cumulant.flows.features.feature_table import FeatureSet, feature_set
from cumulant.flows.features.task import Task, refuse_no_features, resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.registry.candidate_alias import ModelCandidate
from cumulant.flows.registry.equal_models import same_as_champion
from cumulant.flows.registry.models import CANDIDATE, CHAMPION
from cumulant.flows.registry.registration import register
from cumulant.flows.serving.reason_codes import check_codes
from cumulant.flows.training.chosen_rows import row_bound
from cumulant.flows.training.evaluation import champion_parameters, judge, reference
from cumulant.flows.training.final_fit import final_fit
from cumulant.flows.training.fitted import SplitSummary
from cumulant.flows.training.package_step import package
from cumulant.flows.training.search_step import fit
from cumulant.flows.training.training_identity import TrainingWork, trainer_code
from cumulant.flows.training.training_labels import reviewed_table
from cumulant.flows.training.training_rows import newest_row
from cumulant.monitoring.retrain_rule import apply_history
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.gate_rules import split_notes
from cumulant.project.file.training_rules import check_training
from cumulant.project.identity import python_environment
from cumulant.training.records import Evaluation, TrainingSummary, TrialRecord, Verdict
from cumulant.training.spec import quick as quick_spec

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.monitoring.policy import HistoryPolicy
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

_QUICK_SHARE = 0.1


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training did. `reused` names the steps that were found done."""

    run: str
    model: ModelVersion
    validation: Validation
    features: FeatureSet
    split: SplitSummary
    training: TrainingSummary
    trials: tuple[TrialRecord, ...]
    evaluation: Evaluation
    naive: Evaluation
    champion_uri: str | None
    verdict: Verdict
    parity: Parity
    servable: ObjectRef
    target: str
    quick: bool
    as_of: datetime | None
    promoted: bool
    #: the most that search and final fits might take, such as 60s; None without a limit
    time: str | None
    #: the champion that was made again, as NAME/VERSION: it stays
    same_as: str | None
    #: commands that bring the version to callers, in order; none where it is the champion, or was refused
    next: tuple[str, ...]
    notes: tuple[str, ...]
    reused: tuple[str, ...]
    seconds: float


@verb("model.train")
def train(
    project: Project,
    *,
    principal: Principal,
    quick: bool = False,
    as_of: datetime | None = None,
    trials: int | None = None,
    time: str | None = None,
    promote: bool = True,
    history: HistoryPolicy | None = None,
    change: datetime | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Bring the snapshots and features up to date, search, judge, package and register.

    `quick` takes a tenth of the training rows and one set of parameters, and never becomes the champion; `as_of` hides
    what became known later; `trials` and `time` override the project's budgets; without `promote` a version that
    passes the gate stays a candidate, and so it does where the project delivers through releases and has a champion: a
    release moves the alias then. A model that the gate refuses is registered too, without an alias: the verdict is in
    the result, and the command line ends with 1. `history` is what a training learns from that the rule of retraining
    starts; with `change` it is rows since then alone, of half the time, and the test is of the other half.

    Raises:
        ProjectFileError: a setting that no training could use.
        UsageError: the project has no target, cannot be trained as declared, or its rows do not fit in memory; `time`
            is no duration, or 0; `trials` is less than 1.
        ContractBreachError: a source breaks its contract.
        ParityError: the packaged model answers otherwise than the trained one.
    """
    begun = clock.monotonic()
    if time is not None and not duration(time):
        raise UsageError(f"a training needs time: {time}", subject="time", hint="give 90s or 10m")
    if trials is not None and trials < 1:  # a record of a version with fewer could not be read again
        raise UsageError(f"a training needs a trial: {trials}", subject="trials", hint="give 1 or more")
    settings: dict[str, object] = {"quick": quick, "as_of": as_of and as_of.isoformat(), "trials": trials, "time": time}
    if history is not None:
        spans = msgspec.structs.asdict(history).items()
        settings["history"] = {name: None if span is None else show_duration(span) for name, span in spans}
    if change is not None:
        settings["change"] = change.isoformat()
    with open_run(project, "train", principal=principal, progress=progress, settings=settings) as context:
        check_training(project)
        snapshots, fresh = snapshots_of(context)
        task = resolve_task(project, snapshots)
        refuse_no_features(task.plan)
        check_codes(project.policies.serving.reasons, task.plan)
        if as_of is not None and snapshots[task.entity].event_time is None:
            raise UsageError(f"{task.entity} has no event time, so nothing is hidden by --as-of", subject=task.entity)
        table = feature_set(context, task, snapshots, as_of=as_of)
        work = work_of(project, task, snapshots, table, as_of=as_of, quick=quick, trials=trials, time=time)
        if history is not None:
            newest = newest_row(project, work.snapshot, as_of=as_of)
            work = replace(work, training_spec=apply_history(history, work.training_spec, newest))
        if change is not None:
            work = _since_change(work, change)
        candidate = _candidate(context, work, table)
        version, registered = register(context, candidate, promote=promote and not quick)
        candidate.remember(context, version)
        context.ledger.verdict = candidate.word
        reused_steps = {
            **{f"data {name}": True for name in fresh},
            "features": table.reused,
            "search": candidate.fitted.reused,
            "evaluate": candidate.judgement.reused,
            "package": candidate.package.reused,
            "register": registered,
        }
        return TrainResult(
            **_result(context, candidate, version, tuple(name for name, again in reused_steps.items() if again)),
            validation=Validation(run=context.run, snapshots=snapshots, reused=fresh),
            quick=quick,
            time=work.training_spec.time,
            seconds=round(clock.monotonic() - begun, 1),
        )


def _since_change(work: TrainingWork, change: datetime) -> TrainingWork:
    spec, since = work.training_spec, work.training.since
    if since is None or since < change:
        spec = msgspec.structs.replace(spec, since=change.isoformat())
    return replace(work, training_spec=spec, change=change)


def _candidate(context: Context, work: TrainingWork, table: FeatureSet) -> ModelCandidate:
    """Search, judge and package, or find it done."""
    champion = reference(context, work)
    fitted = fit(context, work, champion=champion_parameters(champion))
    judgement = judge(context, work, fitted, champion)
    fitted = final_fit(context, work, fitted)
    lineage = lineage_of(context.project, work, table)
    built, example = package(context, work, fitted, lineage)
    return ModelCandidate(
        work=work,
        table=table,
        fitted=fitted,
        judgement=judgement,
        package=built,
        example=example,
        lineage=lineage,
        reference=champion,
        same=same_as_champion(context.project, built, champion),
    )


def _result(
    context: Context, candidate: ModelCandidate, version: ModelVersion, reused: tuple[str, ...]
) -> dict[str, Any]:
    fitted, judgement = candidate.fitted, candidate.judgement
    return {
        "run": context.run,
        "model": version,
        "features": candidate.table,
        "split": fitted.split,
        "training": fitted.summary,
        "trials": fitted.trials,
        "evaluation": judgement.evaluation,
        "naive": judgement.naive,
        "champion_uri": judgement.champion_uri,
        "verdict": judgement.verdict,
        "parity": candidate.package.parity,
        "servable": candidate.package.servable,
        "target": candidate.work.training.target,
        "as_of": candidate.work.as_of,
        "promoted": CHAMPION in version.aliases,
        "same_as": _same_as(candidate, version),
        "next": _next(context.project, candidate, version),
        "notes": (
            *fitted.notes,
            *judgement.notes,
            *_quick_notes(context.project, candidate.work),
            *split_notes(context.project.spec),
            *unchecked_notes(context.project.policies, candidate.work.task.plan),
            *_place_notes(candidate, version),
        ),
        "reused": reused,
    }


def _quick_notes(project: Project, work: TrainingWork) -> tuple[str, ...]:
    if work.sample == 1 or project.training().final_fit == "train":
        return ()
    return ("a quick look does not fit a second time on all rows, as a whole training does by final_fit: all",)


def _same_as(candidate: ModelCandidate, version: ModelVersion) -> str | None:
    before = candidate.reference
    if before is None or not candidate.same or before.version == version.version or CHAMPION in version.aliases:
        return None
    return f"{before.name}/{before.version}"


def _place_notes(candidate: ModelCandidate, version: ModelVersion) -> tuple[str, ...]:
    """What a training did to the champion that there was."""
    before = candidate.reference
    if before is None or before.version == version.version:
        return ()
    if _same_as(candidate, version) is not None:
        return (f"version {version.version} is the same model as the champion, version {before.version}, which stays",)
    if CHAMPION not in version.aliases:
        return ()
    back = f"`cumulant models alias {before.name}/{before.version} champion` restores it"
    return (f"version {version.version} is the champion now, in place of version {before.version}; {back}",)


def _next(project: Project, candidate: ModelCandidate, version: ModelVersion) -> tuple[str, ...]:
    ready = candidate.judgement.verdict.passed and CANDIDATE in version.aliases and CHAMPION not in version.aliases
    if not ready or candidate.same or not uses_releases(project):
        return ()
    return ("release start",) if was_served(project) else ("up", "release start")


def work_of(
    project: Project,
    task: Task,
    snapshots: Mapping[str, Snapshot],
    table: FeatureSet,
    *,
    as_of: datetime | None,
    quick: bool,
    trials: int | None,
    time: str | None,
) -> TrainingWork:
    """The work of a training with its overrides applied."""
    policy = project.training()
    assert project.spec.training is not None
    rows = row_bound(project, snapshots[task.entity], policy, as_of=as_of)
    spec = msgspec.structs.replace(project.spec.training, rows=rows)
    if trials is not None:
        # A budget of trials alone: the same trials on any machine, however slow.
        spec = msgspec.structs.replace(spec, trials=trials, time=time)
    elif time is not None:
        spec = msgspec.structs.replace(spec, time=time)
    return TrainingWork(
        task=task,
        snapshot=snapshots[task.entity],
        table=table.table,
        training_spec=quick_spec(spec) if quick else spec,
        evaluation_spec=project.spec.evaluation,
        as_of=as_of,
        sample=_QUICK_SHARE if quick else 1.0,
        reviewed=reviewed_table(project, as_of=as_of),
        trainers=trainer_code(project, spec.trainers),
        snapshots=snapshots,
    )


def lineage_of(project: Project, work: TrainingWork, table: FeatureSet) -> dict[str, str]:
    """What a version is made of, by hashes and names."""
    code = project.code
    return {
        **{f"snapshot.{name}": identity for name, identity in table.sources.items()},
        "features": digest(work.task.plan),
        "table": work.table.key,
        "settings": work.settings,
        "as_of": work.as_of.isoformat() if work.as_of else "",
        "code": (code.commit or "") + ("+changes" if code.dirty else ""),
        "environment": python_environment().identity,
    }
