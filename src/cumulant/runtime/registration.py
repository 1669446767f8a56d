"""The steps `package` and `register`: a servable folder, and a version in the registry that carries it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant import data, packaging, training
from cumulant.core.ids import canonical, digest
from cumulant.core.refs import ObjectRef
from cumulant.core.servable import Parity
from cumulant.ports.registry import ModelVersion
from cumulant.runtime.fitting import Fitted, loaded, rows_of
from cumulant.runtime.judging import Judgement
from cumulant.runtime.models import CANDIDATE, CHAMPION, ModelAliased

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.ports.registry import RunLog
    from cumulant.runtime.context import Context
    from cumulant.runtime.work import Work
    from cumulant.training import TrainingSet


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """The stored servable and how it was found to answer as the trained model does."""

    servable: ObjectRef
    parity: Parity
    reused: bool = False


def package(context: Context, work: Work, fitted: Fitted, lineage: Mapping[str, str]) -> Package:
    """Build the servable and prove that it answers as the trained model.

    Raises:
        ParityError: it does not.
    """
    objects = context.project.objects()
    # Commit and environment are recorded, not part of the identity: another commit alone makes no other model.
    inputs = {"model": fitted.model.key, "plan": digest(work.task.plan), "work": work.identity}

    def build() -> dict[str, object]:
        model, rows = loaded(context, fitted.model), rows_of(context, work)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "servable"
            servable = packaging.build(
                model,
                work.task.plan,
                name=context.project.name,
                sample=_sample(rows.test),
                out=folder,
                lineage=lineage,
                example=example(context, work),
            )
            ref = objects.put(f"servables/{digest(servable.files | dict(lineage))}", folder)
        assert servable.parity is not None
        return msgspec.to_builtins(Package(servable=ref, parity=servable.parity))  # type: ignore[no-any-return]

    outcome = context.step(
        "package", inputs, build, verify=lambda found: objects.find(_package(found).servable.key) is not None
    )
    return msgspec.structs.replace(_package(outcome.result), reused=outcome.reused)


def _package(result: Mapping[str, object]) -> Package:
    return msgspec.convert(result, Package)


def _sample(test: TrainingSet) -> pl.DataFrame:
    return test.features


def example(context: Context, work: Work) -> dict[str, Any]:
    """The newest row as a request, personal values as keyed hashes."""
    import polars as pl

    plan: FeaturePlan = work.task.plan
    fields = [field.name for field in plan.request]
    frame = data.scan(work.snapshot, context.project.tables(), as_of=work.as_of).select(fields).tail(1).collect()
    personal = [field.name for field in plan.request if field.personal]
    if personal:
        frame = data.mask_frame(frame, personal, context.project.salt())
    times = [name for name, kind in frame.schema.items() if isinstance(kind, (pl.Datetime, pl.Date))]
    frame = frame.with_columns(pl.col(name).dt.to_string("iso:strict") for name in times)
    return frame.row(0, named=True) if len(frame) else {}


def register(
    context: Context, work: Work, fitted: Fitted, judgement: Judgement, built: Package, lineage: Mapping[str, str], *, promote: bool
) -> tuple[ModelVersion, bool]:
    """Log the run with its trials, register the version, and set its aliases as the verdict says."""
    key = digest([built.servable.key, work.identity, judgement.verdict.passed])
    inputs = {"key": key, "judgement": digest(judgement.verdict), "model": fitted.model.key}

    def log() -> dict[str, object]:
        version = _log(context, work, fitted, judgement, built, lineage, key)
        _point(context, version, CANDIDATE)
        if promote and judgement.verdict.passed and context.project.spec.release.approval == "none":
            _point(context, version, CHAMPION)
        return {"name": version.name, "version": version.version}

    outcome = context.step("register", inputs, log, verify=lambda found: _exists(context, found))
    name, number = str(outcome.result["name"]), str(outcome.result["version"])
    return context.project.registry().resolve(f"{name}/{number}"), outcome.reused


def _exists(context: Context, found: Mapping[str, object]) -> bool:
    from cumulant.core.errors import NotFoundError

    try:
        context.project.registry().resolve(f"{found['name']}/{found['version']}")
    except NotFoundError:
        return False
    return True


def _log(
    context: Context,
    work: Work,
    fitted: Fitted,
    judgement: Judgement,
    built: Package,
    lineage: Mapping[str, str],
    key: str,
) -> ModelVersion:
    project, registry = context.project, context.project.registry()
    with registry.run(project.name, f"train {context.run}", key=key) as run:
        run.params(_params(work, fitted))
        run.metrics(_metrics(fitted, judgement))
        run.tags({"cumulant.run": context.run, "cumulant.verdict": "passed" if judgement.verdict.passed else "refused"})
        for trial in fitted.trials:
            with run.child(f"trial {trial.number} {trial.trainer}") as child:
                child.params({"trainer": trial.trainer, **trial.params})
                child.metrics({} if trial.score is None else {fitted.summary.metric: trial.score, "seconds": trial.seconds})
                child.tags({"state": trial.state})
        _plots(judgement, project.name, run)
        version = registry.register(
            run,
            project.name,
            project.objects().path(built.servable.key),
            _input_example(context, work),
            tags=_tags(context, work, fitted, judgement, built, lineage),
            key=key,
        )
    return version


def _point(context: Context, version: ModelVersion, alias: str) -> None:
    context.project.registry().alias(version.name, alias, version.version)
    context.emit(ModelAliased(model=version.name, alias=alias, version=version.version))


def _params(work: Work, fitted: Fitted) -> dict[str, object]:
    summary = fitted.summary
    return {
        "target": work.training.target,
        "trainer": summary.trainer,
        "as_of": work.as_of.isoformat() if work.as_of else "",
        "rows": fitted.split.train,
        "features": summary.features,
        "folds": len(summary.folds),
        "trials": summary.trials,
        **{f"best.{name}": value for name, value in summary.params.items()},
    }


def _metrics(fitted: Fitted, judgement: Judgement) -> dict[str, float]:
    found = {f"cv_{fitted.summary.metric}": fitted.summary.score}
    for name, one in judgement.evaluation.metrics.items():
        if one.value is not None:
            found[name] = one.value
        if one.low is not None and one.high is not None:
            found |= {f"{name}_low": one.low, f"{name}_high": one.high}
    found |= {f"naive_{name}": value for name, value in judgement.naive.values().items()}
    return found


def _tags(
    context: Context,
    work: Work,
    fitted: Fitted,
    judgement: Judgement,
    built: Package,
    lineage: Mapping[str, str],
) -> dict[str, str]:
    model = context.project.spec.model
    tags = {f"cumulant.{name}": value for name, value in lineage.items()}
    return {
        **tags,
        "cumulant.servable": built.servable.key,
        "cumulant.work": work.identity,
        "cumulant.run": context.run,
        "cumulant.trainer": fitted.summary.trainer,
        "cumulant.parameters": canonical(fitted.summary.params).decode(),
        "cumulant.verdict": "passed" if judgement.verdict.passed else "refused",
        "owner": model.owner,
        "purpose": model.purpose,
        "risk": model.risk,
        "target": work.training.target,
    }


def _input_example(context: Context, work: Work) -> Any:
    """Five rows of features as the model takes them: a pandas frame; personal values as keyed hashes."""
    personal = [field.name for field in work.task.plan.request if field.personal]
    frame = rows_of(context, work).test.features.head(5)
    kept = [name for name in personal if name in frame.columns]
    if kept:
        frame = data.mask_frame(frame, kept, context.project.salt())
    return frame.to_pandas()


def _plots(judgement: Judgement, title: str, run: RunLog) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for path in training.save_plots(judgement.evaluation, Path(scratch), title=title):
            run.artifact(path, "plots")
