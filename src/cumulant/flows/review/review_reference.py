"""What the queue compares with: answers of the served version to rows it was tested on, and rows it learned from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cumulant import statistics
from cumulant.core.errors import CumulantError, DataError, MissingPartError
from cumulant.core.servable import Servable
from cumulant.core.version import __version__
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.flows.ledger.stored_folder import stored_folder
from cumulant.flows.registry.model_record import ModelRecord, find_record
from cumulant.flows.registry.version_servable import describe_row_servable, describe_servable
from cumulant.flows.review.reference_key import inputs_of, key_of
from cumulant.flows.training.chosen_rows import read_rows
from cumulant.review.reasons import ReviewReference

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from cumulant.core.plan import FeaturePlan, Field
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet

#: rows kept of each kind: enough for p-values of a thousandth, little enough to hold and to search
_CALIBRATION, _KNOWN = 20_000, 4_000
#: a text with more values than this names things rather than kinds
_KINDS = 200
_LABEL = "label"
_ANSWER = "answer."


class _Summary(msgspec.Struct, frozen=True, kw_only=True):
    classes: tuple[str | int | bool, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]


def reference_of(context: Context, version: ModelVersion) -> tuple[ReviewReference | None, tuple[str, ...]]:
    """The reference of a registered version, made once; None, and a note why, where there is none to be had."""
    described = describe_servable(context.project, version)
    if not isinstance(described, Servable):
        return None, (f"{version.uri} reads tensors: unsure and far rows are not detected",)
    record = find_record(context.project, version)
    from cumulant.servable.scorer import labels

    bare = ReviewReference(task=described.task, classes=labels(described))
    if record is None:
        return bare, (f"{version.uri} was not trained here: unsure and far rows are not detected",)
    try:
        with context.project.objects().open(_made_reference(context, version, record, described)) as folder:
            reference = _read(folder, described)
            return _with_spread(reference, folder) if described.task == "regression" else (reference, ())
    except CumulantError as error:
        return bare, (f"unsure and far rows are not detected: {error.message}",)


def request_fields(project: Project, version: ModelVersion) -> tuple[Field, ...]:
    """The fields that a request of the version may have; none where it reads tensors."""
    described = describe_servable(project, version)
    return tuple(described.plan.request) if isinstance(described, Servable) else ()


def stored_reference(project: Project, version: ModelVersion) -> ReviewReference | None:
    """As `reference_of`, where it was made before; showing a case does not make it."""
    described = describe_servable(project, version)
    record = find_record(project, version)
    if record is None or not isinstance(described, Servable):
        return None
    key = key_of(record)
    if project.objects().find(key) is None:
        return None
    with project.objects().open(key) as folder:
        return _read(folder, described)


def _made_reference(context: Context, version: ModelVersion, record: ModelRecord, described: Servable) -> str:
    """The key of the reference, which is made where it is not there yet."""
    objects = context.project.objects()
    key = key_of(record)
    context.step(
        "review reference",
        {**inputs_of(record), "by": __version__},
        lambda: _store(context, version, record, described.plan),
        function=StepFunction(f"{__name__}:{run_reference.__name__}", {"version": version.uri}),
        uses=("registry",),
        verify=lambda _: objects.find(key) is not None,
    )
    return key


def run_reference(context: Context, *, version: str) -> dict[str, object]:
    """The step in a process of its own: the key of the reference."""
    from cumulant.flows.registry.lineage import trained_version

    registered, record, described = trained_version(context.project, version)
    return _store(context, registered, record, described.plan)


def _store(context: Context, version: ModelVersion, record: ModelRecord, plan: FeaturePlan) -> dict[str, object]:
    from cumulant.flows.registry.lineage import work_again

    key, work = key_of(record), work_again(context, record, plan)
    with stored_folder(context.project.objects(), key, "reference") as folder:
        _write(context, version, record, work, folder)
    return {"key": key}


def _write(context: Context, version: ModelVersion, record: ModelRecord, work: TrainingWork, folder: Path) -> None:
    import polars as pl

    from cumulant.flows.training.final_fit import held_out_scores
    from cumulant.flows.training.search_step import rows_of

    split = rows_of(context, work)
    test = split.test.at_most(_CALIBRATION)
    described = describe_row_servable(context.project, version)
    answers = held_out_scores(context.project, version, record, test)
    _calibration(answers, test.target).write_parquet(folder / "calibration.parquet")
    known, summary = _known(context, work, described, split.train.at_most(_KNOWN))
    if described.task == "regression":
        _rows(context, work, described, test).select(known.drop(_LABEL + ".").columns).with_columns(
            pl.Series(_ANSWER, answers), pl.Series(_LABEL + ".", test.target)
        ).write_parquet(folder / "tested.parquet")
    known.write_parquet(folder / "known.parquet")
    (folder / "reference.json").write_bytes(msgspec.json.encode(summary))


def _calibration(answers: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> pl.DataFrame:
    import polars as pl

    wide = answers if answers.ndim == 2 else np.stack([1 - answers, answers], axis=1)
    columns = {f"p{place}": wide[:, place] for place in range(wide.shape[1])}
    return pl.DataFrame({**columns, "target": target})


def _known(
    context: Context, work: TrainingWork, described: Servable, rows: TrainingSet
) -> tuple[pl.DataFrame, _Summary]:
    """Training rows as requests, without personal values, keys and times; with their labels."""
    import polars as pl

    from cumulant.servable.scorer import labels as packaging_labels

    fields, frame = _fields(described), _rows(context, work, described, rows)
    numbers = tuple(field.name for field in fields if field.dtype in ("int", "float", "bool"))
    texts = [field.name for field in fields if field.dtype == "str" and frame[field.name].n_unique() <= _KINDS]
    classes = packaging_labels(described)
    labels = [classes[int(value)] if classes else float(value) for value in rows.target]
    summary = _Summary(classes=classes, numbers=numbers, categories=tuple(texts))
    return frame.select(*numbers, *texts).with_columns(pl.Series(_LABEL + ".", labels)), summary


def _rows(context: Context, work: TrainingWork, described: Servable, rows: TrainingSet) -> pl.DataFrame:
    """The requests of these rows, in the fields that may be shown."""
    names = [field.name for field in _fields(described)]
    read = read_rows(context.project, work.snapshot, work.training, names, as_of=work.as_of)
    return read.select(names)[rows.rows]


def _fields(described: Servable) -> list[Field]:
    source = described.plan.sources[described.plan.entity]
    return [field for field in described.plan.request if not field.personal and field.name not in source.key]


def _read(folder: Path, described: Servable) -> ReviewReference:
    """Without Polars, which showing a case does not need."""
    summary = msgspec.json.decode((folder / "reference.json").read_bytes(), type=_Summary)
    calibration, known = (_table(folder / f"{name}.parquet") for name in ("calibration", "known"))
    columns: dict[str, list[Any]] = known.to_pydict()
    numbers = {
        name: np.array([np.nan if number is None else number for number in columns[name]], dtype=np.float64)
        for name in summary.numbers
    }
    categories = {name: columns[name] for name in summary.categories}
    scale = statistics.Scale.of(numbers, categories)
    points = scale.coordinates(numbers, categories)
    several = described.task != "regression"
    if _LABEL not in columns:
        columns = {_LABEL if name == _LABEL + "." else name: values for name, values in columns.items()}
    return ReviewReference(
        task=described.task,
        classes=summary.classes,
        calibration=_floats_of(calibration.drop_columns(["target"])) if several else None,
        target=_floats(calibration["target"]).astype(np.int64) if several else None,
        scale=scale,
        known=statistics.Known(points) if points.shape[0] and points.shape[1] else None,
        rows=[dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    )


def _table(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read()


def _floats_of(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.stack([_floats(column) for column in table.columns], axis=1)


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column without nulls."""
    return np.concatenate([np.empty(0), *(np.from_dlpack(chunk) for chunk in column.chunks)])


def _with_spread(reference: ReviewReference, folder: Path) -> tuple[ReviewReference, tuple[str, ...]]:
    """With how far off an answer is likely to be, learned on the test rows; a note where that is unknown."""
    import polars as pl

    from cumulant.monitoring.performance.lossmodel import learn_loss, row_losses, tells_rows_apart
    from cumulant.monitoring.performance.rows import PredictionRows

    tested, scale = pl.read_parquet(folder / "tested.parquet"), reference.scale
    if scale is None:
        return reference, ()
    numbers = {name: tested[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in scale.numbers}
    points = scale.coordinates(numbers, {name: tested[name].to_list() for name in scale.categories})
    answers = tested[_ANSWER].to_numpy()
    # Test rows are in the order of time.
    rows = PredictionRows(
        time=np.zeros(len(answers), dtype="datetime64[us]"), score=answers, truth=tested[_LABEL + "."].to_numpy()
    )
    try:
        model = learn_loss(points, rows, names=[str(place) for place in range(points.shape[1])], measure="mae")
    except (DataError, MissingPartError) as error:
        return reference, (f"no row is called unsure: {error.message}",)
    if not tells_rows_apart(model):
        return reference, (
            "no row is called unsure: test rows do not show that some are harder to classify than others",
        )
    return replace(reference, spread=partial(row_losses, model), spreads=model.expected), ()
