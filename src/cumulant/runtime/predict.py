"""The flow `predict`: answers for a frame of raw rows, worked out here or asked of a server."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant import data, features, packaging
from cumulant.core.errors import EngineUnavailableError, RequestError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Answer, Servable
from cumulant.runtime.context import open_run
from cumulant.runtime.features import scans, used_sources
from cumulant.runtime.models import servable_folder
from cumulant.runtime.tables import read_table
from cumulant.runtime.validate import snapshots_of

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.ports.access import Principal
    from cumulant.project import Project

_CHUNK = 500
_TIMEOUT = 60.0


def predict(
    project: Project,
    uri: str,
    rows: pl.DataFrame | Path,
    *,
    principal: Principal,
    url: str | None = None,
    as_of: datetime | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """One answer a row, in order: `prediction`, `probability` and, for classes, `probabilities`.

    `rows`, a frame or a file, have the raw fields of the request schema; other columns are left alone. Without
    `url`, windows and lookups see the project's newest snapshots (as of `as_of`), each row at its own moment of
    prediction; with it, the server's stored state.

    Raises:
        RequestError: a required field is missing, a value is not of its type, or the server refuses a row.
        DataError: the file cannot be read.
        EngineUnavailableError: the server does not answer.
    """
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f'"{url}" is no address of a server', subject=url, hint="write http://127.0.0.1:8080")
    with open_run(project, "predict", action="model.predict", principal=principal, progress=progress) as context:
        version = project.registry().resolve(uri)
        scorer = packaging.Scorer(servable_folder(project, version))
        plan = scorer.servable.plan
        frame, others = _given(project, scorer.servable, rows)
        absent = [field.name for field in plan.request if field.name not in frame.columns]
        if absent:
            progress(f"not in the rows, and so taken as missing: {', '.join(absent)}")
        if others:
            progress(f"not read by the model, and so ignored: {', '.join(others)}")
        if url is not None and as_of is not None:
            raise UsageError("a server answers from its own state", hint="leave out --as-of, or --url")
        if url is not None:
            return _frame(list(_asked(_address(url, version.name, scorer.servable), plan, frame, progress)))
        snapshots, _ = snapshots_of(context, plan.sources)
        used = used_sources(plan, snapshots)
        progress("features")
        computed = features.compute(plan, scans(project, snapshots, used, as_of=as_of), rows=frame)
        progress("answers", 0.8)
        return _frame(scorer.answers({name: computed[name].to_list() for name in scorer.features}))


def _given(project: Project, servable: Servable, rows: pl.DataFrame | Path) -> tuple[pl.DataFrame, list[str]]:
    """The request fields of the rows, read as the source reads its own files, and the names of other columns."""
    plan = servable.plan
    declared = project.spec.data.get(plan.entity) or data.SourceSpec()
    if isinstance(rows, Path):
        rows = read_table(rows, like=data.reading(declared, plan.request, str(rows)))
    moment = plan.predict_at.column if plan.predict_at else None
    found = data.as_fields(
        rows, plan.request, missing=declared.missing, required=[moment] if moment else [], others=servable.unread
    )
    return found, [name for name in rows.columns if name not in found.columns]


def _address(url: str, name: str, servable: Servable) -> str:
    """Where the server answers plain rows: without reasons, which no table of answers holds."""
    path = f"{url.rstrip('/')}/v1/models/{name}/predict"
    return path if servable.reasons is None else f"{path}?reasons=0"


def _asked(url: str, plan: FeaturePlan, frame: pl.DataFrame, progress: Progress) -> Iterator[Answer]:
    fields = [field.name for field in plan.request if field.name in frame.columns]
    chosen = frame.select(fields)
    for start in range(0, len(chosen), _CHUNK):
        rows = [{k: _plain(v) for k, v in row.items()} for row in chosen.slice(start, _CHUNK).iter_rows(named=True)]
        yield from _post(url, rows)
        progress("asking the server", min(1.0, (start + _CHUNK) / len(chosen)))


def _post(url: str, rows: list[dict[str, object]]) -> list[Answer]:
    call = urllib.request.Request(  # noqa: S310 - the address is the user's own
        url, data=msgspec.json.encode({"rows": rows}), headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(call, timeout=_TIMEOUT) as response:  # noqa: S310
            body = msgspec.json.decode(response.read(), type=dict[str, msgspec.Raw])
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise RequestError(f"the server refused the rows ({error.code}): {said}", subject=url) from None
    except OSError as error:
        raise EngineUnavailableError(
            f"no server answers at {url}: {error}", subject=url, hint="start one with `cumulant serve`"
        ) from None
    return msgspec.json.decode(body["predictions"], type=list[Answer])


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, (datetime, date)) else value


def _frame(answers: list[Answer]) -> pl.DataFrame:
    import polars as pl

    columns: dict[str, list[object]] = {"prediction": [one.prediction for one in answers]}
    for name in ("probability", "probabilities", "state_age"):
        values = [getattr(one, name) for one in answers]
        if any(value is not None for value in values):
            columns[name] = values
    return pl.DataFrame(columns)
