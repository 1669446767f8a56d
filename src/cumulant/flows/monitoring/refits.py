"""Scores of a recent refit of the served model, with which its loss is compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.units import to_micros
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.features.task import resolve_task
from cumulant.flows.monitoring.backtest.replayed_training import MOST_ROWS, Learner, learner_of
from cumulant.flows.monitoring.served_log import ServedModel, row_references
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.chosen_rows import chosen_rows, read_rows
from cumulant.flows.training.train import work_of
from cumulant.flows.training.training_labels import refs_of
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.monitoring.performance.rows import PredictionWindow
    from cumulant.ports.registry import ModelVersion
    from cumulant.statistics.rows import Floats
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.model import FittedModel

#: share of a window's predictions that must be among the rows of the sources
_FOUND = 0.8
#: a search that was cut short leaves few rounds; a bar that is lower than the served model's own is none
_ROUNDS = 100
#: fewer rows make no model to compare with
_LEAST = 200
#: the column of a refit's scores
REFIT = "refit"


@dataclass(frozen=True, kw_only=True)
class Refits:
    """The project's labelled rows, and the trainer and parameters of the served version, without search.

    Fits are made at `origin` and each `every` after it, on at most MOST_ROWS rows whose label was known. `raw`: the
    request fields of all rows. `columns`: of several classes the place of each served class among those of the rows, or
    -1. `share`: of the source's rows that `training.rows` uses.
    """

    work: TrainingWork
    rows: TrainingSet
    raw: pl.DataFrame
    columns: NDArray[np.int64] | None
    learner: Learner
    context: Context
    origin: datetime
    every: timedelta
    share: float = 1.0
    fitted: dict[int, FittedModel | None] = field(default_factory=dict)

    def places(self, refs: pl.Series) -> dict[str, int]:
        """Of each of the references the place of its row in `rows`; and of others."""
        at = pl.Series("at", self.rows.at).cast(pl.Datetime("us"))
        fields = self.work.task.plan.request
        row_refs: Sequence[str | None] = refs_of(refs, self.raw, fields, at, self.context.project.salt()).to_list()
        return {ref: place for place, ref in enumerate(row_refs) if ref is not None}

    def scores(self, window: PredictionWindow, refs: pl.Series, places: Mapping[str, int]) -> Floats | None:
        """[n] scores (of several classes [n, classes]) by references and their `places`, within `window`; else NaN.

        None where too few places are known, or too little was known at the fit.
        """
        each = np.array([-1 if ref is None else places.get(ref, -1) for ref in refs], dtype=np.int64)
        known_rows = each >= 0
        if not len(known_rows) or known_rows.mean() < _FOUND * self.share:
            return None
        model = self._model(max(0, (window.start - self.origin) // self.every))
        if model is None:
            return None
        answers = self._of_served(model.predict_frame(self.rows.features[each[known_rows]]))
        scores = np.full((len(each), *answers.shape[1:]), np.nan)
        scores[known_rows] = answers
        return scores

    def _of_served(self, answers: Floats) -> Floats:
        """The answers in the classes of the served version, which add up to 1."""
        if self.columns is None:
            return answers
        scores: Floats = np.where(self.columns >= 0, answers[:, self.columns], 0.0)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    def _model(self, number: int) -> FittedModel | None:
        if number not in self.fitted:
            self.fitted[number] = self._fit(self.origin + number * self.every)
        return self.fitted[number]

    def _fit(self, moment: datetime) -> FittedModel | None:
        rows, history = self.rows, self.context.project.policies.monitoring.history
        assert rows.at is not None
        known = rows.at if rows.known is None else np.maximum(rows.known, rows.at)
        usable = known < to_micros(moment)
        if history.window is not None:
            usable &= rows.at >= to_micros(moment - history.window)
        if self.columns is not None:  # what the served version cannot answer is no label of its predictions either
            usable &= np.isin(rows.target, self.columns)
        if usable.sum() < _LEAST or len(np.unique(rows.target[usable])) < 2:
            return None
        training_rows = rows.take(usable)
        if len(training_rows) > MOST_ROWS:
            training_rows = training_rows.sample(MOST_ROWS / len(training_rows), seed=self.work.training.seed)
        self.context.progress(f"fit as of {moment:%Y-%m-%d}")
        root = self.context.project.root
        from cumulant.training.search.fixed_fit import fit_once

        return fit_once(training_rows, self.work.training, self.learner.trainer, self.learner.params, root=root)


def refit_scores(
    context: Context,
    version: ModelVersion,
    model: ServedModel,
    origin: datetime,
    groups: Iterable[Sequence[tuple[PredictionWindow, pl.DataFrame]]],
) -> Iterator[pl.DataFrame]:
    """MOMENT and REFIT of labelled rows, window by window: the answers of a refit of `version`.

    Windows without a refit are left out. The log is read once a group.

    Raises:
        StorageError: rows cannot be read.
    """
    refits: Refits | None = None
    for group in groups:
        refs = row_references(context.project, model, pl.concat([rows for _, rows in group])) if group else None
        if refs is None or refs.null_count() == len(refs):
            continue
        refits = refits or refits_of(context, version, origin, classes=model.classes)
        if refits is None:
            return
        places, begin = refits.places(refs.drop_nulls()), 0
        for window, rows in group:
            scores = refits.scores(window, refs.slice(begin, rows.height), places)
            begin += rows.height
            if scores is not None:
                yield rows.select(MOMENT).with_columns(pl.Series(REFIT, scores))


def refits_of(
    context: Context, version: ModelVersion, origin: datetime, *, classes: Sequence[object] = ()
) -> Refits | None:
    """What refits of a version with these classes need; None: turned off, or no sources with times."""
    project, refit = context.project, context.project.policies.monitoring.performance.refit
    snapshots = {
        name: snapshot for name in project.policies.sources if (snapshot := newest_snapshot(project, name)) is not None
    }
    if refit is None or project.spec.training is None or len(snapshots) < len(project.policies.sources):
        return None
    task = resolve_task(project, snapshots)
    table = feature_set(context, task, snapshots, as_of=None)
    work = work_of(project, task, snapshots, table, as_of=None, quick=False, trials=None, time=None)
    rows = labelled_rows(
        project, task, work.snapshot, work.table, spec=work.training, evaluation=work.evaluation, as_of=None
    )
    if rows.at is None:
        return None
    learner = learner_of(work.training, find_record(project, version), version.uri)
    rounds = learner.params.get("rounds")
    if isinstance(rounds, int) and rounds < _ROUNDS:
        learner = msgspec.structs.replace(learner, params={**learner.params, "rounds": _ROUNDS})
    chosen = chosen_rows(project, work.snapshot, work.training, as_of=None)
    return Refits(
        work=work,
        rows=rows,
        raw=_raw(context, work, rows),
        columns=_columns(rows, classes),
        learner=learner,
        context=context,
        origin=origin,
        every=refit,
        share=1.0 if chosen is None else chosen.share,
    )


def _columns(rows: TrainingSet, classes: Sequence[object]) -> NDArray[np.int64] | None:
    if rows.task != "multiclass":
        return None
    known = {name: place for place, name in enumerate(rows.classes)}
    return np.array([known.get(str(name_of_class), -1) for name_of_class in classes], dtype=np.int64)


def _raw(context: Context, work: TrainingWork, rows: TrainingSet) -> pl.DataFrame:
    """The fields of the requests of `rows`."""
    names = [field.name for field in work.task.plan.request]
    read = read_rows(context.project, work.snapshot, work.training, names, as_of=None)
    return read.select(names)[rows.rows]
