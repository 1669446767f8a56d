"""The reference of the champion's log: its training and test rows, as a log would hold them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core import expr
from cumulant.core.errors import NotFoundError, UsageError
from cumulant.core.ids import digest
from cumulant.core.masking import fingerprint
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.core.version import __version__
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.flows.ledger.stored_folder import stored_folder
from cumulant.flows.registry.lineage import trained_version, work_again
from cumulant.flows.registry.model_record import ModelRecord, find_record
from cumulant.flows.registry.models import CHAMPION
from cumulant.flows.registry.version_servable import describe_row_servable, describe_servable
from cumulant.flows.serving.batch.answer_columns import decision_columns
from cumulant.flows.training.chosen_rows import read_rows
from cumulant.flows.training.final_fit import held_out_scores
from cumulant.flows.training.search_step import rows_of
from cumulant.monitoring.tables import ANSWER, MOMENT, request_column
from cumulant.servable.scorer import labels

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan, FeatureSpec
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet

#: rows of a reference, and how many of them may be test rows where there are more
MOST = 200_000
_TESTED = MOST // 2
_FILE = "reference.parquet"
_HINT = "name rows as they should be with --reference FILE"


@dataclass(frozen=True)
class ServedReference:
    """The reference of a served version. `described`: its servable; `path`: a Parquet file; `key`: names its content.

    `truth`: the column of the test rows' truth. `weights`: importance of each request column; `unread`: those without.
    """

    version: ModelVersion
    described: Servable
    path: Path
    key: str
    truth: str
    weights: Mapping[str, float]
    unread: tuple[str, ...] = ()


@verb("monitor.run")
@contextmanager
def served_reference(
    project: Project, *, principal: Principal, progress: Progress = silent
) -> Iterator[ServedReference]:
    """The reference of the champion, made once; its file is there while the block lasts.

    A file with the columns of a log: the request's fields (personal ones as keyed hashes), the moment of prediction,
    and of test rows the answers and the truth (null in training rows). Beyond MOST rows a random sample with a fixed
    seed, at most half of them test rows.

    Raises:
        UsageError: no version is registered, it reads tensors, or it was not trained here.
        NotFoundError: what it was trained on was removed.
    """
    version = _champion(project)
    record, described = find_record(project, version), describe_servable(project, version)
    if not isinstance(described, Servable):
        raise UsageError(
            f"{version.uri} reads tensors: what it was trained on is not known", subject=version.uri, hint=_HINT
        )
    if record is None:
        raise UsageError(
            f"{version.uri} was not trained by this project: what it was trained on is not known",
            subject=version.uri,
            hint=_HINT,
        )
    key, objects = _key(project, record), project.objects()
    if objects.find(key) is None:
        with open_run(project, "monitor reference", principal=principal, progress=progress) as context:
            _make(context, version, record, described)
    weights, unread = weights_of(described.plan, record.judgement.evaluation.importance)
    truth = _truth(record.training.target)
    with objects.open(key) as folder:
        yield ServedReference(version, described, folder / _FILE, key, truth, weights, unread)


def _champion(project: Project) -> ModelVersion:
    """The champion; where there is none, the version that answers under the model's name."""
    for uri in (f"{project.name}@{CHAMPION}", project.name):
        with contextlib.suppress(NotFoundError):
            return project.registry().resolve(uri)
    raise UsageError("no version is registered: there is no training to compare with", subject=project.name, hint=_HINT)


def _key(project: Project, record: ModelRecord) -> str:
    # Hashes under another salt would all look new.
    salt = fingerprint(project.salt())
    return f"monitoring/{digest({'servable': record.servable.key, 'work': record.work, 'salt': salt, 'format': 1})}"


def _make(context: Context, version: ModelVersion, record: ModelRecord, described: Servable) -> None:
    key = _key(context.project, record)
    objects = context.project.objects()
    context.step(
        "monitoring reference",
        {"key": key, "by": __version__},
        lambda: _store(context, version, record, described.plan),
        function=StepFunction(f"{__name__}:{run_reference.__name__}", {"version": version.uri}),
        uses=("registry",),
        verify=lambda _: objects.find(key) is not None,
    )


def run_reference(context: Context, *, version: str) -> dict[str, object]:
    """The step in a process of its own: the key of the reference."""
    registered, record, described = trained_version(context.project, version, hint=_HINT)
    return _store(context, registered, record, described.plan)


def _store(context: Context, version: ModelVersion, record: ModelRecord, plan: FeaturePlan) -> dict[str, object]:
    key = _key(context.project, record)
    try:
        work = work_again(context, record, plan)
    except NotFoundError as error:
        raise NotFoundError(
            f"what {version.uri} was trained on is no longer stored: {error.message}",
            subject=version.uri,
            hint=_HINT,
        ) from error
    with stored_folder(context.project.objects(), key, "reference") as folder:
        _table(context, version, record, work).write_parquet(folder / _FILE)
    return {"key": key}


def _table(context: Context, version: ModelVersion, record: ModelRecord, work: TrainingWork) -> pl.DataFrame:
    import polars as pl

    split = rows_of(context, work)
    test = split.test.at_most(_TESTED)
    train = split.train.at_most(MOST - len(test))
    described = describe_row_servable(context.project, version)
    scores = held_out_scores(context.project, version, record, test)
    answers = decision_columns(scores, described).rename(lambda name: ANSWER + name)
    classes = labels(described)
    truth = [classes[int(value)] if classes else float(value) for value in test.target]
    tested = answers.with_columns(pl.Series(_truth(work.training.target), truth))
    requests = _requests(context, work, described, [train, test])
    lacking = pl.DataFrame(schema=tested.schema).clear(len(train))
    return pl.concat([requests, pl.concat([lacking, tested])], how="horizontal")


def _requests(context: Context, work: TrainingWork, described: Servable, parts: list[TrainingSet]) -> pl.DataFrame:
    """What a request would carry, under the names that a log gives it, and the moment of prediction."""
    import polars as pl

    from cumulant.data.masking import mask_frame

    rows = np.concatenate([part.rows for part in parts])
    fields = described.plan.request
    names = list(dict.fromkeys([*(field.name for field in fields), *_time(work)]))
    frame = read_rows(context.project, work.snapshot, work.training, names, as_of=work.as_of)[rows]
    moment = _moment(frame, work)
    frame = mask_frame(frame, [field.name for field in fields if field.personal], context.project.salt())
    requests = frame.select(pl.col(field.name).alias(request_column(field.name)) for field in fields)
    return requests if moment is None else requests.with_columns(moment)


def _time(work: TrainingWork) -> tuple[str, ...]:
    at = work.task.predict_at
    column = work.snapshot.event_time if at is None else at.column
    return () if column is None else (column,)


def _moment(frame: pl.DataFrame, work: TrainingWork) -> pl.Series | None:
    import polars as pl

    at, named = work.task.predict_at, _time(work)
    if not named:
        return None
    offset = pl.duration(microseconds=0 if at is None else at.offset_us)
    return frame.select((pl.col(named[0]) + offset).alias(MOMENT)).to_series()


def _truth(target: str) -> str:
    """The truth's name: that of its column where it is one."""
    return target if target.isidentifier() else "label"


#: what a column counts that the model hardly reads, where the mean is 1: a fault of its source shows all the same
LEAST = 0.1


def weights_of(plan: FeaturePlan, importance: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Weights of the columns of a request (mean 1, at least LEAST), and those without importance.

    A column's is the sum of the importances of the features that read it, directly or through others.
    """
    whole = sum(importance.values())
    if whole <= 0 or not plan.request:
        return {}, ()
    read: dict[str, frozenset[str]] = {}
    for spec in plan.features:  # in dependency order
        read[spec.name] = _columns(spec, plan).union(*(read.get(name, frozenset()) for name in _others(spec)))
    sums = dict.fromkeys((field.name for field in plan.request), 0.0)
    used: set[str] = set()
    for name, value in importance.items():
        for column in read.get(name, frozenset()) & sums.keys():
            sums[column] += value
            used |= {column} if value > 0 else set()
    mean = sum(sums.values()) / len(sums)
    if mean <= 0:
        return {}, ()
    weights = {request_column(name): max(value / mean, LEAST) for name, value in sums.items()}
    return weights, tuple(request_column(name) for name in sums if name not in used)


def _others(spec: FeatureSpec) -> frozenset[str]:
    return frozenset() if spec.expr is None else expr.features(spec.expr)


def _columns(spec: FeatureSpec, plan: FeaturePlan) -> frozenset[str]:
    """Columns of the row that a feature reads: in its expression, as a key, or as what later rows see of it."""
    if spec.expr is not None:
        return expr.columns(spec.expr)
    measure = spec.window or spec.lookup
    if measure is None:
        return frozenset()
    columns = frozenset(measure.by)
    if measure.source != plan.entity:
        return columns
    if spec.lookup is not None:
        return columns | {spec.lookup.column}
    return columns | (expr.columns(spec.window.value) if spec.window is not None and spec.window.value else frozenset())
