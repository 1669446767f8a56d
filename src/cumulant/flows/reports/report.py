"""The report of a run or a model: its content gathered once, then written as a page, as Markdown or as JSON."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import NotFoundError, StorageError, UsageError, not_found
from cumulant.flows.data.validate import load_snapshot
from cumulant.flows.ledger.actions import check, verb
from cumulant.flows.ledger.ledger_records import RUN, RunRecord, read_run, read_step, runs
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.version_servable import describe_row_servable
from cumulant.flows.reports import collect, feature_texts, model_content
from cumulant.flows.training.evaluation_record import EVALUATION, EvaluateResult

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.reports.content import ReportData
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project

LATEST = "latest"
_REGISTER, _SNAPSHOT = "register", "snapshot"


@verb("project.report")
def report(project: Project, target: str, *, out: Path, principal: Principal) -> Path:
    """Write the report of a run (`latest`, or the beginning of its id) or of a model; the format is that of the suffix.

    The page is also logged to the registry, beside the run that trained the model.

    Raises:
        NotFoundError: there is no such run and no such model.
        UsageError: the suffix is none of .html, .md and .json.
        StorageError: the file cannot be written.
    """
    out = Path(out)
    check_format(out)
    data = content(project, target, principal=principal)
    write_report(data, out)
    _log(project, data, out)
    return out


def check_format(out: Path) -> None:
    """Raise UsageError where the suffix of a file is none of a report's formats."""
    if out.suffix.lower() not in (".html", ".md", ".json"):
        raise UsageError(f'"{out.name}" names no format', subject=str(out), hint="end it in .html, .md or .json")


def write_report(data: ReportData, out: Path) -> None:
    """Write a report in the format of the file's suffix. Raises StorageError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(render_report(data, out.suffix))
    except OSError as error:
        raise StorageError(f"the report could not be written: {error.strerror or error}", subject=str(out)) from None


def render_report(data: ReportData, suffix: str) -> bytes:
    """The report in the format of a file's suffix."""
    if suffix.lower() == ".json":
        return msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n"
    if suffix.lower() == ".md":
        from cumulant.flows.reports import markdown

        return markdown.render(data).encode()
    from cumulant.flows.reports import page

    return page.render(data).encode()


@verb("project.report")
def content(project: Project, target: str, *, principal: Principal) -> ReportData:
    """The content of the report of a run or model.

    Raises:
        NotFoundError: there is no such run and no such model.
    """
    run = _run(project, target)
    if run is not None:
        return _of_run(project, run)
    try:
        version = project.registry().resolve(target)
    except NotFoundError as error:
        if target == LATEST:
            raise NotFoundError("nothing has run yet", subject=target, hint="cumulant train") from None
        known = [record.id for record in runs(project.journal())[:5]]
        raise NotFoundError(
            f'there is no run and no model "{target}"', subject=target, hint=error.hint or f"runs: {', '.join(known)}"
        ) from None
    check(project, principal, "project.report", model=version.name)
    record = find_record(project, version)
    return of_model(project, version, run=record.run if record else None)


def _run(project: Project, target: str) -> RunRecord | None:
    """The run that `target` names; for `latest` the newest that trained, else the newest of all."""
    known = runs(project.journal())
    if target == LATEST:
        trained = [record for record in known if record.flow == "train" and record.status == "done"]
        return next(iter(trained or known), None)
    matches = [record for record in known if record.id.startswith(target)]
    if len(matches) > 1 and len({record.id for record in matches}) > 1:
        raise not_found("run", target, [record.id for record in matches])
    return matches[0] if matches else None


def _of_run(project: Project, run: RunRecord) -> ReportData:
    row = project.journal().get(EVALUATION, run.id)
    if row is not None:
        evaluated = msgspec.convert(row.value, EvaluateResult)
        known = of_model(project, evaluated.model, run=run.id)
        subject = f"{evaluated.model.name} version {evaluated.model.version}, evaluated again"
        known = model_content.with_judgement(
            known, evaluated.judgement, subject=subject, tested=evaluated.judgement.tested
        )
        return _masked(project, known, describe_row_servable(project, evaluated.model).plan)
    version = _registered(project, run)
    if version is not None:
        return of_model(project, version, run=run.id)
    known = collect.base(project, subject=f"{project.name}, run {run.id}", run=run.id)
    return msgspec.structs.replace(
        known,
        created=run.started,
        sources=collect.sources(project, _snapshots(project, run)),
        lineage={"flow": run.flow, "status": run.status},
        events=collect.events(project.journal().events(run=run.id)),
        **collect.times(run),
    )


def of_model(project: Project, version: ModelVersion, *, run: str | None) -> ReportData:
    servable = describe_row_servable(project, version)
    known = collect.base(project, subject=f"{version.name} version {version.version}", run=run)
    known = msgspec.structs.replace(
        known,
        **collect.version_facts(version),
        features=collect.features(servable),
        serving=collect.serving(servable),
        lineage=dict(servable.lineage),
        **(_of_journal(project, run) if run else {}),
    )
    record = find_record(project, version)
    if record is None:
        return known
    snapshots = [load_snapshot(project, identity) for identity in record.snapshots.values()]
    known = msgspec.structs.replace(
        known,
        sources=collect.sources(project, snapshots),
        serving=collect.serving(servable, record.fitted.summary.threshold_text),
        environment={"python": record.python, **record.packages},
    )
    known = model_content.with_training(known, record, predict_at=servable.plan.predict_at)
    return _masked(project, known, servable.plan)


def _of_journal(project: Project, run: str) -> dict[str, Any]:
    row = project.journal().get(RUN, run)
    times = {} if row is None else collect.times(read_run(row))
    return {"events": collect.events(project.journal().events(run=run)), **times}


def _masked(project: Project, known: ReportData, plan: FeaturePlan) -> ReportData:
    personal = {field.name for field in plan.sources[plan.entity].fields if field.personal}
    personal |= feature_texts.personal(plan)
    return model_content.without_personal_values(known, personal, project.salt()) if personal else known


def _registered(project: Project, run: RunRecord) -> ModelVersion | None:
    for result in _results(project, run, _REGISTER):
        try:
            return project.registry().resolve(f"{result['name']}/{result['version']}")
        except NotFoundError:  # removed from the registry since
            return None
    return None


def _snapshots(project: Project, run: RunRecord) -> list[Snapshot]:
    snapshots = []
    for use in run.steps:
        row = project.journal().get("step", use.identity)
        result = read_step(row).result if row is not None else None
        if result and _SNAPSHOT in result:
            snapshots.append(load_snapshot(project, str(result[_SNAPSHOT])))
    return snapshots


def _results(project: Project, run: RunRecord, step: str) -> list[dict[str, object]]:
    rows = [project.journal().get("step", use.identity) for use in run.steps if use.name == step]
    return [result for row in rows if row is not None and (result := read_step(row).result)]


def _log(project: Project, data: ReportData, out: Path) -> None:
    """Keep the page beside the run that trained the model, where the registry has one."""
    if data.uri is None:
        return
    version = project.registry().resolve(data.uri)
    if version.run_id is None:
        return
    with suppress(StorageError):  # the page itself is written; a read-only registry keeps no copy
        project.registry().attach(version.run_id, out, "report")
