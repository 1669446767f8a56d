"""The flow `predict`: answers for a frame of raw rows, computed here or requested from a server."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.data.spec import SourceSpec
from cumulant.flows.data.tables import read_table
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.serving.batch.request_checks import ColumnChecks
from cumulant.flows.serving.server_client import RemoteServer, answers_frame, request_answers

if TYPE_CHECKING:
    import polars as pl

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.servable.scorer import Scorer

#: rows that are answered together
_BLOCK = 65_536


@verb("model.predict")
def predict(
    project: Project,
    uri: str,
    rows: pl.DataFrame | Path,
    *,
    principal: Principal,
    url: str | None = None,
    token: str | None = None,
    as_of: datetime | None = None,
    features: bool = False,
    warnings: list[str] | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """One answer a row, in order: `prediction`, `probability` and, for classes, `probabilities`.

    `rows`, a frame or a file, have the raw fields of the request schema; other columns are left alone. Without
    `url`, windows and lookups see the project's newest snapshots (as of `as_of`), each row at its own moment of
    prediction; with it, the server's stored state. `token` is what that server wants of its callers. `features` adds
    a column of that name: a struct of the features that each answer was computed from.
    `warnings` gets a sentence for each check that rows fail which are answered here.

    Raises:
        RequestError: a required field is missing, a value is not of its type, or the server or `serving.invalid`
            refuses a row.
        DataError: the file cannot be read.
        EngineUnavailableError: the server does not answer.
        OutOfMemoryError: the model needs more memory for the rows than there is.
    """
    with open_run(project, "predict", writes=False, principal=principal, progress=progress) as context:
        from cumulant.servable.scorer import Scorer

        version = project.registry().resolve(uri)
        with open_servable(project, version) as folder:
            scorer = Scorer(folder)
        plan = scorer.servable.plan
        frame, others = _request_rows(project, scorer.servable, rows, progress)
        absent = [field.name for field in plan.request if field.name not in frame.columns]
        if absent:
            from cumulant.data.files.prediction_rows import prepare_note

            note = prepare_note(_declared(project, scorer.servable).prepare)
            progress(f"not in the rows, and so taken as missing: {', '.join(absent)}{note}")
        if others:
            progress(f"not read by the model, and so ignored: {', '.join(others)}")
        if url is not None and as_of is not None:
            raise UsageError("a server answers from its own state", hint="leave out --as-of, or --url")
        if url is not None and features:
            raise UsageError("a server answers without its features", hint="leave out features, or url")
        if url is not None:
            return answers_frame(
                list(request_answers(RemoteServer(url, token), _path(version.name, scorer.servable), frame, progress))
            )
        snapshots, _ = snapshots_of(context, plan.sources)
        used = used_sources(plan, snapshots)
        progress("features")
        from cumulant.features.offline.offline import compute

        computed = compute(plan, scans(project, snapshots, used, as_of=as_of), rows=frame)
        checks = ColumnChecks(scorer.servable, refuse=project.policies.serving.invalid == "refuse")
        faults = checks.faults(frame, computed)
        if warnings is not None:
            warnings += checks.warnings(faults, frame.height)
        progress("answers", 0.8)
        answers = _answer_blocks(scorer, computed)
        return answers.with_columns(features=computed.select(scorer.features).to_struct()) if features else answers


def _answer_blocks(scorer: Scorer, computed: pl.DataFrame) -> pl.DataFrame:
    """The answers to a table of features, block by block: Python objects take many times the memory of columns."""
    import polars as pl

    columns = computed.select(scorer.features)
    blocks = (columns.slice(begin, _BLOCK) for begin in range(0, max(columns.height, 1), _BLOCK))
    return pl.concat([answers_frame(scorer.answers(block.to_dict(as_series=False))) for block in blocks])


def _request_rows(
    project: Project, servable: Servable, rows: pl.DataFrame | Path, progress: Progress
) -> tuple[pl.DataFrame, list[str]]:
    """The request fields of the rows, read as the source reads its own files, and the names of other columns."""
    from cumulant.data.files.prediction_rows import as_fields

    plan = servable.plan
    declared = _declared(project, servable)
    if isinstance(rows, Path):
        from cumulant.data.files.prediction_rows import prediction_spec

        rows = read_table(rows, like=prediction_spec(declared, plan.request, str(rows)), progress=progress)
    moment = plan.predict_at.column if plan.predict_at else None
    fields = as_fields(
        rows,
        plan.request,
        missing=declared.missing,
        rules=declared.rules,
        required=[moment] if moment else [],
        others=servable.unread,
        prepare=declared.prepare,
    )
    return fields, [name for name in rows.columns if name not in fields.columns]


def _declared(project: Project, servable: Servable) -> SourceSpec:
    policy = project.policies.sources.get(servable.plan.entity)
    return SourceSpec() if policy is None else policy.spec


def _path(name: str, servable: Servable) -> str:
    """Where the server answers plain rows: without reasons, which no table of answers holds."""
    path = f"/v1/models/{name}/predict"
    return path if servable.reasons is None else f"{path}?reasons=0"
