"""The flow `predict`: answers for a frame of raw rows, worked out here or asked of a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant import data, packaging
from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.runtime.asking import Server, answers, frame_of
from cumulant.runtime.batch.inputs import list_inputs, open_stream
from cumulant.runtime.batch.lanes import Lanes, cores
from cumulant.runtime.batch.models import Model, registered
from cumulant.runtime.batch.work import answer
from cumulant.runtime.context import open_run
from cumulant.runtime.models import servable_folder
from cumulant.runtime.tables import read_table

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data import Piece
    from cumulant.ports.access import Principal
    from cumulant.project import Project
    from cumulant.serving.rules import Fault

#: rows that are answered at once; as many as the history has, up to the most, as each block goes through it again
_ROWS, _MOST_ROWS = 1 << 17, 1 << 20
#: rows that a thread scores at once
_SLICE = 4096


def predict(
    project: Project,
    uri: str,
    rows: pl.DataFrame | Path,
    *,
    principal: Principal,
    url: str | None = None,
    token: str | None = None,
    as_of: datetime | None = None,
    warnings: list[str] | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """One answer a row, in order: `prediction`, `probability` and, for classes, `probabilities`.

    `rows`, a frame or a file, have the raw fields of the request schema; other columns are left alone. Without
    `url`, windows and lookups see the project's newest snapshots (as of `as_of`), each row at its own moment of
    prediction; with it, the server's stored state. `token` is what that server wants of its callers.
    `warnings` gets a sentence for each check that rows fail which are answered here.

    Raises:
        RequestError: a required field is missing, a value is not of its type, or the server or `serving.invalid`
            refuses a row.
        DataError: the file cannot be read.
        EngineUnavailableError: the server does not answer.
    """
    if url is not None:
        if as_of is not None:
            raise UsageError("a server answers from its own state", hint="leave out --as-of, or --url")
        return _from_server(project, uri, rows, Server(url, token), principal=principal, progress=progress)
    import polars as pl

    return pl.concat(
        answer_blocks(project, uri, rows, principal=principal, as_of=as_of, warnings=warnings, progress=progress)
    )


def answer_blocks(
    project: Project,
    uri: str,
    rows: pl.DataFrame | Path,
    *,
    principal: Principal,
    as_of: datetime | None = None,
    warnings: list[str] | None = None,
    progress: Progress = silent,
) -> Iterator[pl.DataFrame]:
    """As `predict` without a server, block by block of the rows: memory holds one block and what its features look
    back at. `warnings` are complete at the end.

    Raises:
        RequestError, DataError: as `predict`.
        UsageError: the model reads tensors.
    """
    with (
        registered(project, uri, principal=principal, keep=None, as_of=as_of, progress=progress) as model,
        closing(Lanes(cores(), _SLICE)) as lanes,
    ):
        if not isinstance(model.described, Servable):
            raise UsageError(f"{uri} reads tensors", subject=uri, hint="add --output FILE, or send them to a server")
        faults, done = Counter["Fault"](), 0
        for piece in _pieces(model, rows, progress):
            prepared = model.work.prepare(piece)
            faults.update(prepared.faults)
            done += prepared.rows
            yield answer(model.work, prepared, lanes)
            progress("answers", piece.share)
        if warnings is not None:
            warnings += model.work.warnings(faults, done)


def _pieces(model: Model, rows: pl.DataFrame | Path, progress: Progress) -> Iterator[Piece]:
    """The rows in blocks; of no rows, one without any."""
    size = min(max(_ROWS, model.history), _MOST_ROWS)
    if not isinstance(rows, Path):
        columns = _columns(model, rows, progress)
        for first in range(0, max(rows.height, 1), size):
            block = rows.select(columns).slice(first, size)
            yield data.Piece(block, first, (first + block.height) / max(rows.height, 1))
        return
    first = 0
    inputs = list_inputs(model, str(rows), progress)
    for number, one in enumerate(inputs):
        stream = open_stream(model, one, size)
        columns = _columns(model, stream.head, silent if number else progress)
        for piece in stream.pieces(columns):
            yield piece._replace(first=first, share=one.before + one.share * piece.share)
            first += piece.rows.height
    if not first:
        head = open_stream(model, inputs[0], 1).head.clear()
        yield data.Piece(head.select(_columns(model, head, silent)), 0, 1.0)


def _columns(model: Model, head: pl.DataFrame, progress: Progress) -> list[str]:
    """The columns to read of rows that have those of `head`; says what a person should know of the others."""
    columns = model.work.columns(head)
    for remark in model.work.remarks(head):
        progress(remark)
    return columns


def _from_server(
    project: Project, uri: str, rows: pl.DataFrame | Path, server: Server, *, principal: Principal, progress: Progress
) -> pl.DataFrame:
    with open_run(project, "predict", action="model.predict", principal=principal, progress=progress):
        version = project.registry().resolve(uri)
        servable = packaging.load_servable(servable_folder(project, version))
        frame, others = _given(project, servable, rows, progress)
        absent = [field.name for field in servable.plan.request if field.name not in frame.columns]
        if absent:
            said = data.not_prepared(_declared(project, servable).prepare)
            progress(f"not in the rows, and so taken as missing: {', '.join(absent)}{said}")
        if others:
            progress(f"not read by the model, and so ignored: {', '.join(others)}")
        return frame_of(list(answers(server, _path(version.name, servable), frame, progress)))


def _given(
    project: Project, servable: Servable, rows: pl.DataFrame | Path, progress: Progress
) -> tuple[pl.DataFrame, list[str]]:
    """The request fields of the rows, read as the source reads its own files, and the names of other columns."""
    plan = servable.plan
    declared = _declared(project, servable)
    if isinstance(rows, Path):
        rows = read_table(rows, like=data.reading(declared, plan.request, str(rows)), progress=progress)
    moment = plan.predict_at.column if plan.predict_at else None
    found = data.as_fields(
        rows,
        plan.request,
        missing=declared.missing,
        rules=declared.rules,
        required=[moment] if moment else [],
        others=servable.unread,
        prepare=declared.prepare,
    )
    return found, [name for name in rows.columns if name not in found.columns]


def _declared(project: Project, servable: Servable) -> data.SourceSpec:
    return project.spec.data.get(servable.plan.entity) or data.SourceSpec()


def _path(name: str, servable: Servable) -> str:
    """Where the server answers plain rows: without reasons, which no table of answers holds."""
    path = f"/v1/models/{name}/predict"
    return path if servable.reasons is None else f"{path}?reasons=0"
