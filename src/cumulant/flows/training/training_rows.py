"""From the feature table and the snapshot to rows that can be learned from or judged on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import expr
from cumulant.core.errors import DataError, UsageError, did_you_mean
from cumulant.core.units import moment
from cumulant.data.row_columns import ROW
from cumulant.features.definition.personal_features import personal_features
from cumulant.flows.data.pii import personal_texts
from cumulant.flows.training.chosen_rows import chosen_rows, since_expr, take_chosen
from cumulant.flows.training.split_rule import combine_columns, hashes, identity_of
from cumulant.flows.training.training_labels import reviewed_labels

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.core.refs import TableRef
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.features.task import Task
    from cumulant.flows.training.chosen_rows import ChosenRows
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.policy import EvaluationPolicy, TrainingPolicy

_CONSTANT = "constant"
#: what `evaluation.clusters` says where it names no column
_RULES = ("auto", "day", "row")


def labelled_rows(
    project: Project,
    task: Task,
    snapshot: Snapshot,
    table: TableRef,
    *,
    spec: TrainingPolicy,
    evaluation: EvaluationPolicy,
    as_of: datetime | None,
    reviewed: TableRef | None = None,
    by_hash: bool = True,
    leakage: bool = False,
) -> TrainingSet:
    """The entity rows with features and a known label, at most `spec.rows`; `as_of` hides labels that became known
    later. A row without a label takes that of the table `reviewed`, where a reviewer gave it one. `by_hash`: rows
    without times carry the hash by which they are split; versions of before were split at random. `leakage`: refuse or
    name a feature that gives the target away, as is done once before a search.

    Raises:
        DataError: the target, a slice or a cost names a column that the source lacks, or cannot be learned.
    """
    from cumulant.data.snapshot import scan as scan_snapshot

    features_of = project.tables().scan(table)
    check_training_columns(
        [*(field.name for field in snapshot.fields), *features_of.collect_schema().names()], spec, evaluation
    )
    scan = scan_snapshot(snapshot, project.tables(), as_of=as_of)
    if reviewed is None:  # the decisions of reviewers are matched by any column
        scan = scan.select(ROW, *sorted(columns_read(task, snapshot, spec, evaluation)))
    chosen = chosen_rows(project, snapshot, spec, as_of=as_of)
    raw, computed = take_chosen(scan, chosen), take_chosen(features_of, chosen)
    if not raw[ROW].equals(computed[ROW]):
        raise DataError("the feature table and the snapshot hold different rows", hint="run the command again")
    if as_of is not None and not raw.height:
        raise DataError(
            f"no row of {task.entity} is known at {as_of.isoformat()}",
            subject=task.entity,
            hint="give --as-of a time after the first rows",
        )
    return _labelled(
        project,
        task,
        snapshot,
        (raw, computed),
        spec=spec,
        evaluation=evaluation,
        reviewed=reviewed,
        by_hash=by_hash,
        leakage=leakage,
        chosen=chosen,
    )


def rows_without_features(
    project: Project,
    task: Task,
    snapshot: Snapshot,
    *,
    spec: TrainingPolicy,
    evaluation: EvaluationPolicy,
    reviewed: TableRef | None = None,
) -> TrainingSet:
    """The labelled rows with a constant in place of their features: all that a split and the settings are checked by.

    Names whose values a feature computes are left out of costs and clusters, since no feature was computed.

    Raises:
        DataError: as `labelled_rows`.
    """
    import polars as pl

    from cumulant.data.snapshot import scan as scan_snapshot

    computed = computed_names(task.plan)
    cost = spec.cost
    if cost is not None:
        parts = {name: getattr(cost, name) for name in ("false_negative", "false_positive")}
        unknown = {name: 1.0 for name, part in parts.items() if part in computed}
        spec = msgspec.structs.replace(spec, cost=msgspec.structs.replace(cost, **unknown))
    clusters = "auto" if evaluation.clusters in computed else evaluation.clusters
    evaluation = msgspec.structs.replace(evaluation, slices=[], clusters=clusters)
    scan = scan_snapshot(snapshot, project.tables())
    if reviewed is None:  # the decisions of reviewers are matched by any column
        scan = scan.select(ROW, *sorted(columns_read(task, snapshot, spec, evaluation)))
    chosen = chosen_rows(project, snapshot, spec, as_of=None)
    raw = take_chosen(scan, chosen)
    return _labelled(
        project,
        task,
        snapshot,
        (raw, raw.select(ROW, pl.lit(0.0).alias(_CONSTANT))),
        spec=spec,
        evaluation=evaluation,
        reviewed=reviewed,
        chosen=chosen,
    )


def computed_names(plan: FeaturePlan) -> frozenset[str]:
    """The features whose values are not those of the column of the same name."""
    return frozenset(feature.name for feature in plan.features if feature.expr != expr.Column(feature.name))


def columns_read(task: Task, snapshot: Snapshot, spec: TrainingPolicy, evaluation: EvaluationPolicy) -> set[str]:
    """The columns of the source that the labelled rows need beside their features, where there are no reviewed rows."""
    labels = expr.columns(task.target)
    moments = {known.column for name, known in snapshot.known.items() if name in labels}
    wanted = {*labels, *moments, *snapshot.key, *cost_columns(spec), *evaluation.slices}
    wanted |= {snapshot.event_time, evaluation.clusters}
    if task.predict_at is not None:
        wanted.add(task.predict_at.column)
    else:
        wanted.update(identity_of(snapshot, task, evaluation)[0])
    return {field.name for field in snapshot.fields if field.name in wanted}


def _labelled(
    project: Project,
    task: Task,
    snapshot: Snapshot,
    frames: tuple[pl.DataFrame, pl.DataFrame],
    *,
    spec: TrainingPolicy,
    evaluation: EvaluationPolicy,
    reviewed: TableRef | None,
    by_hash: bool = True,
    leakage: bool = False,
    chosen: ChosenRows | None = None,
) -> TrainingSet:
    """The rows of the source and their features, `frames`, as a training set; they are all rows, or those `chosen`."""
    from cumulant.data.snapshot import source_of
    from cumulant.features.offline.frames import known_times
    from cumulant.features.offline.polars_compiler import evaluate
    from cumulant.training.dataset import training_set
    from cumulant.training.thinning import thinned

    raw, computed = frames
    # the chosen rows are of that time already, and a filter would copy them
    if chosen is None and (late_enough := since_expr(spec, snapshot)) is not None:
        keep = raw.select(late_enough).to_series()
        raw, computed = raw.filter(keep), computed.filter(keep)
        if not raw.height:
            raise DataError(
                f"no row of {task.entity} is of {_date(spec.since)} or later, so nothing is trained on",
                subject="training.since",
                hint="write an earlier date",
            )
    merged = _merged(raw, computed)
    known = known_times(raw, source_of(snapshot), expr.columns(task.target))
    hidden = personal_texts(task.plan)
    at = _moments(raw, task)
    target = _known_labels(evaluate(task.target, raw), known)
    review_labels = None if reviewed is None else project.tables().scan(reviewed).collect()
    answered = (
        None
        if review_labels is None
        else reviewed_labels(review_labels, raw, task, at, target=target, salt=project.salt())
    )
    if answered is not None:
        target, known = answered.fill(target, known, at)
    rows = training_set(
        computed.drop(ROW, *hidden, strict=False),
        target,
        spec=spec,
        at=at,
        known=known,
        reviewed=None if answered is None else answered.used,
        weight=None if answered is None else answered.weight,
        groups=groups_of(merged, evaluation, () if at is not None else snapshot.key),
        slices=_slices(project, merged, evaluation, task),
        costs=_chosen(merged, cost_columns(spec), "training.cost"),
        identity=None
        if at is not None or not by_hash
        else hashes(combine_columns(raw, computed), snapshot, task, evaluation),
        leakage=leakage,
    )
    notes = (f"{name} is text of a personal column, which the model would carry, and is not used" for name in hidden)
    rows = replace(rows, notes=(*rows.notes, *notes))
    return rows if chosen is None else thinned(rows, len(chosen.positions), chosen.of)


def _date(when: datetime | None) -> str:
    """The date of a midnight; else the whole time."""
    return "" if when is None else when.isoformat().removesuffix("T00:00:00+00:00")


def cost_columns(spec: TrainingPolicy) -> list[str]:
    """The columns that hold the costs of wrong decisions."""
    cost = spec.cost
    return (
        []
        if cost is None
        else [column for column in (cost.false_negative, cost.false_positive) if isinstance(column, str)]
    )


def newest_row(project: Project, snapshot: Snapshot, *, as_of: datetime | None) -> datetime:
    """The event time of the newest row that is known at `as_of`; a span of history is counted back from it.

    Raises:
        UsageError: the source has no event time, or no row.
    """
    import polars as pl

    newest = None
    if snapshot.event_time is not None:
        from cumulant.data.snapshot import scan as scan_snapshot

        scan = scan_snapshot(snapshot, project.tables(), as_of=as_of)
        newest = scan.select(pl.col(snapshot.event_time).max()).collect().item()
    if newest is None:
        raise UsageError(
            f"{snapshot.source} has no event time, or no row, from which a span of history could be counted",
            subject=snapshot.source,
            hint="leave out monitoring.retrain.history, or declare event_time",
        )
    return moment(newest)


def _slices(
    project: Project, columns: Mapping[str, pl.Series], evaluation: EvaluationPolicy, task: Task
) -> pl.DataFrame | None:
    """The columns by whose values metrics are reported; personal ones as keyed hashes."""
    from cumulant.data.masking import mask_frame

    slices = _chosen(columns, evaluation.slices, "evaluation.slices")
    raw = {field.name for field in task.plan.sources[task.entity].fields if field.personal}
    personal = (raw | personal_features(task.plan)) & set(slices.columns if slices is not None else ())
    return mask_frame(slices, personal, project.salt()) if slices is not None and personal else slices


def _known_labels(target: pl.Series, known: pl.Series | None) -> pl.Series:
    """Labels that become known at no time are none, as `as_of` has it too."""
    import polars as pl

    if known is None or not known.null_count():
        return target
    return pl.select(pl.when(known.is_not_null()).then(target).alias(target.name)).to_series()


def _merged(raw: pl.DataFrame, computed: pl.DataFrame) -> Mapping[str, pl.Series]:
    """Columns by which slices, groups and costs are named: features first, then what the row brings."""
    return {column.name: column for frame in (raw, computed) for column in frame.get_columns() if column.name != ROW}


def _moments(raw: pl.DataFrame, task: Task) -> pl.Series | None:
    import polars as pl

    if task.predict_at is None:
        return None
    offset = pl.duration(microseconds=task.predict_at.offset_us)
    return raw.select((pl.col(task.predict_at.column) + offset).alias("at"))["at"]


def groups_of(columns: Mapping[str, pl.Series], evaluation: EvaluationPolicy, key: Sequence[str]) -> pl.Series | None:
    """What rows depend on each other by: the declared column; of rows without time whose `key` has several columns, as
    a customer and a visit, the first of them that repeats.
    """
    if evaluation.clusters == "auto" and len(key) > 1:
        repeated = (columns[name] for name in key if name in columns and columns[name].n_unique() < len(columns[name]))
        return next(repeated, None)
    if evaluation.clusters in _RULES:
        return None
    groups = _chosen(columns, [evaluation.clusters], "evaluation.clusters")
    return None if groups is None else groups.to_series()


def check_columns(names: Sequence[str], known: Collection[str], place: str) -> None:
    """Raises DataError where `place` of the project file names what is neither a feature nor a column."""
    for name in names:
        if name not in known:
            raise DataError(
                f'{place} names "{name}", which is neither a feature nor a column',
                subject=name,
                hint=did_you_mean(name, known) or f"known: {', '.join(list(known)[:12])}",
            )


def check_training_columns(known: Collection[str], spec: TrainingPolicy, evaluation: EvaluationPolicy) -> None:
    """As `check_columns`, for all that a training names."""
    check_columns(evaluation.slices, known, "evaluation.slices")
    check_columns(cost_columns(spec), known, "training.cost")
    if evaluation.clusters not in _RULES:
        check_columns([evaluation.clusters], known, "evaluation.clusters")


def _chosen(columns: Mapping[str, pl.Series], names: Sequence[str], place: str) -> pl.DataFrame | None:
    import polars as pl

    check_columns(names, columns, place)
    return pl.DataFrame([columns[name] for name in dict.fromkeys(names)]) if names else None
