"""Estimates of a served model's loss before labels come, by kind of model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from cumulant.core.errors import DataError, MissingPartError
from cumulant.core.ids import digest
from cumulant.core.version import __version__
from cumulant.flows.monitoring.result_cache import ResultCache, cache_folder
from cumulant.flows.monitoring.served_log import ServedModel, predictions, request_values, test_predictions
from cumulant.monitoring.performance.kinds import Kind
from cumulant.monitoring.performance.lossmodel import estimate_loss, learn_loss
from cumulant.monitoring.performance.multiclass import ClassEstimators, estimate_class_windows, learn_estimators
from cumulant.monitoring.performance.rows import PredictionRows
from cumulant.monitoring.performance.unlabelled import (
    EstimatedFigure,
    EstimatedWindow,
    Estimator,
    estimate_windows,
    learn_estimator,
)
from cumulant.monitoring.tables import request_column
from cumulant.outcomes.join.log_rows import IDENTITY
from cumulant.training.payloads.encoding import derive_inputs, encode

if TYPE_CHECKING:
    from cumulant.core.plan import Field
    from cumulant.core.servable import Input
    from cumulant.flows.monitoring.reference import ServedReference
    from cumulant.project.project import Project
    from cumulant.statistics.rows import Floats

#: one window that holds everything
_ALL = timedelta(days=73_000)
#: test rows that a model of the loss is learned from; more make it no surer, and each look learns it
_MOST = 20_000
#: types of a request that are numbers or kinds; a moment only grows
_READ = ("int", "float", "bool", "str")


class LossEstimate(NamedTuple):
    """The loss of some rows, or why there is none. `figures`: of classes every metric that is estimated."""

    figure: EstimatedFigure | None
    refused: str | None
    figures: Mapping[str, EstimatedFigure] = {}


class Estimates(NamedTuple):
    """`refused`: why nothing is estimated. `of`: estimates rows of `served_log` as one window, by kind of change.

    `read`: must have read what `of` needs of its rows from the log; None: nothing.
    """

    refused: str | None
    of: Callable[[pl.DataFrame, Kind | None], LossEstimate]
    read: Callable[[pl.DataFrame], None] | None = None


def estimates_of(
    project: Project, served: ServedReference, model: ServedModel, test: pl.DataFrame, *, window: timedelta
) -> Estimates:
    """Estimates of the served version's loss, learned from its test rows.

    Args:
        project: whose log it is.
        served: the version.
        model: what it answers.
        test: of `served_log.tested_rows`.
        window: how long a window is.
    """
    reference = test_predictions(test, served.truth, model, window)
    if not len(reference):
        return _none("its training left no test rows with a truth")
    cache = _cache(project, served, model, window)
    if model.several:
        names = [str(label) for label in model.classes]
        several = cache.get("classes", ClassEstimators, lambda: learn_estimators(reference, names=names, every=window))
        return _by_scores(several.refused, partial(estimate_class_windows, several), window)
    if model.task == "binary":
        estimator = cache.get("scores", Estimator, lambda: learn_estimator(reference, every=window))
        return _by_scores(estimator.refused, partial(estimate_windows, estimator), window)
    try:
        return _by_inputs(_Inputs.of(project, served, model, test), test, reference, window)
    except (DataError, MissingPartError) as error:
        return _none(error.message)


def _none(why: str) -> Estimates:
    return Estimates(why, lambda _part, _kind: LossEstimate(None, why))


def _cache(project: Project, served: ServedReference, model: ServedModel, window: timedelta) -> ResultCache:
    """Where what the version's test rows teach is stored: each look would learn it again."""
    classes = [[type(label).__name__, label] for label in model.classes]
    key = digest([served.key, served.truth, model.task, classes, window.total_seconds(), __version__])
    return ResultCache(cache_folder(project, "monitoring", "estimators"), key)


def _by_scores(
    refused: str | None, estimate: Callable[..., tuple[EstimatedWindow, ...]], window: timedelta
) -> Estimates:
    """`estimate`: of predictions in windows, with the metrics of each."""

    def of(part: pl.DataFrame, kind: Kind | None) -> LossEstimate:
        (result,) = estimate(predictions(part, window), every=_ALL, kind=kind)
        return LossEstimate(result.figures.get("brier"), result.refused, result.figures)

    return Estimates(refused, of)


def _by_inputs(inputs: _Inputs, test: pl.DataFrame, reference: PredictionRows, window: timedelta) -> Estimates:
    if not inputs.fields:
        return _none("requests have keys, times and personal values only, and nothing that the loss could go with")
    few = np.linspace(0, len(reference) - 1, min(len(reference), _MOST)).astype(np.int64)
    seen, names = inputs.read(test[few]), [field.name for field in inputs.fields]
    model = learn_loss(seen, reference.where(few), names=names, measure="mse")

    def of(part: pl.DataFrame, kind: Kind | None) -> LossEstimate:
        estimate = estimate_loss(model, inputs.requested(part), predictions(part, window).score, kind=kind)
        return LossEstimate(estimate.figure, estimate.refused)

    return Estimates(None, of, inputs.read_requests)


@dataclass(eq=False)
class _Inputs:
    """Numeric inputs of the loss model: monitored fields that the model reads, without keys and hashes.

    `cached`: the rows of the log that were read last, and their values.
    """

    project: Project
    fields: tuple[Field, ...]
    inputs: tuple[Input, ...]
    cached: tuple[pl.DataFrame, Floats] | None = None

    @classmethod
    def of(cls, project: Project, served: ServedReference, model: ServedModel, test: pl.DataFrame) -> _Inputs:
        left_out = {*served.unread, *project.policies.monitoring.drift.ignore}
        fields = tuple(
            field
            for field in model.request
            if field.dtype in _READ
            and not field.personal
            and field.name not in model.source.key
            and not {field.name, request_column(field.name)} & left_out
            and test[request_column(field.name)].null_count() < test.height
        )
        return cls(project, fields, derive_inputs(_with_field_names(test, fields)))

    def read(self, test: pl.DataFrame) -> Floats:
        """[n, fields] of rows of the reference."""
        return encode(_with_field_names(test, self.fields), self.inputs).astype(np.float64)

    def read_requests(self, rows: pl.DataFrame) -> None:
        """Read the fields of the requests of some rows of the log, if they are not cached. Raises StorageError."""
        if self._places(rows) is None:
            values = encode(request_values(self.project, self.fields, rows), self.inputs).astype(np.float64)
            self.cached = rows.select(IDENTITY).with_row_index("place"), values

    def requested(self, part: pl.DataFrame) -> Floats:
        """[n, fields] of rows that were read last."""
        places = self._places(part)
        assert places is not None
        assert self.cached is not None
        inputs: Floats = self.cached[1][places.to_numpy()]
        return inputs

    def _places(self, rows: pl.DataFrame) -> pl.Series | None:
        """[n] the places of rows among the cached ones; None where one is not there."""
        if self.cached is None:
            return None
        places = rows.select(IDENTITY).join(self.cached[0], on=IDENTITY, how="left", maintain_order="left")["place"]
        return None if places.null_count() else places


def _with_field_names(test: pl.DataFrame, fields: Sequence[Field]) -> pl.DataFrame:
    return test.select(pl.col(request_column(field.name)).alias(field.name) for field in fields)
