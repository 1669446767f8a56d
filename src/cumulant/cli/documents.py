"""The JSON documents of `train`, `evaluate` and the demos, as types: their JSON Schema is made from these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.demo.fraud.report import FraudStory
from cumulant.demo.report import MonitoringReport, ReleaseReport, ReviewReport
from cumulant.flows.reports.content import GateReport, Interval, ReportData, StepReport

if TYPE_CHECKING:
    from cumulant.flows.features.feature_table import FeatureSet
    from cumulant.server.operations.training import TrainedRows


class DataFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Rows over all sources: in = passed + quarantined + dropped by `prepare`."""

    rows_in: int
    rows_passed: int
    rows_quarantined: int
    rows_dropped: int
    sources: dict[str, dict[str, int]]


class FeatureFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` of the feature table, of which this run computed `rows_computed`."""

    count: int
    names: tuple[str, ...]
    rows: int
    rows_computed: int


class TrainingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`metrics` and `naive` are on the untouched test rows, with the ends of their 95% intervals.

    `trainer` is that of the best trial; `blend` has the weight of each trainer where a blend is the model.
    `warnings`: what needs attention, and the setting of the project file that handles it.
    """

    task: str
    rows: int
    test_rows: int
    folds: int
    trials: int
    trainer: str | None
    blend: dict[str, float]
    best_settings: dict[str, str]
    metrics: dict[str, Interval]
    naive: dict[str, Interval]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class ModelFigures(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    uri: str
    aliases: tuple[str, ...]


class TrainDocument(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    data: DataFigures
    features: FeatureFigures
    training: TrainingFigures
    gate: GateReport
    model: ModelFigures
    reused: tuple[str, ...]
    #: the steps in order, with the seconds that each took in this run
    steps: tuple[StepReport, ...]
    seconds: float


class ServeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The server that answered, and the request that was sent; `running`: whether it still runs."""

    url: str
    pid: int
    running: bool
    request: dict[str, Any]
    answer: dict[str, Any]
    milliseconds: float
    truth: bool | None


class DemoDocument(TrainDocument, frozen=True, kw_only=True):
    """What `cumulant demo --json` prints."""

    folder: str
    serve: ServeFigures
    release: tuple[ReleaseReport, ...]
    monitoring: MonitoringReport
    review: ReviewReport
    report: str
    tracking_uri: str


def data_figures(report: ReportData) -> DataFigures:
    names = ("rows_in", "rows_passed", "rows_quarantined", "rows_dropped")
    sources = {source.name: {name: int(getattr(source, name)) for name in names} for source in report.sources}
    return DataFigures(sources=sources, **{name: sum(rows[name] for rows in sources.values()) for name in names})


def training_figures(report: ReportData) -> TrainingFigures:
    training = report.training
    assert training is not None
    best = next((trial for trial in training.trials if trial.number == training.best), None)
    return TrainingFigures(
        task=training.task,
        rows=training.rows,
        test_rows=training.test_rows,
        folds=sum(fold.name != "test" for fold in training.folds),
        trials=len(training.trials),
        trainer=best.trainer if best else None,
        blend=training.blend.weights if training.blend is not None and training.blend.taken else {},
        best_settings=best.settings if best else {},
        metrics={metric.name: metric.model for metric in report.metrics},
        naive={metric.name: metric.naive for metric in report.metrics if metric.naive is not None},
        notes=training.notes,
        warnings=training.warnings,
    )


def train_document(
    report: ReportData, features: FeatureSet | TrainedRows, *, reused: tuple[str, ...], seconds: float
) -> TrainDocument:
    """The document of a training that reached its end."""
    assert report.gate is not None
    return TrainDocument(
        run=report.run or "",
        data=data_figures(report),
        features=FeatureFigures(
            count=len(report.features),
            names=tuple(feature.name for feature in report.features),
            rows=features.rows,
            rows_computed=features.rows_computed,
        ),
        training=training_figures(report),
        gate=report.gate,
        model=ModelFigures(
            name=report.name, version=report.version or "", uri=report.uri or "", aliases=report.aliases
        ),
        reused=reused,
        steps=report.steps,
        seconds=seconds,
    )


def demo_schema() -> dict[str, object]:
    """The JSON Schema of `cumulant demo --json`; a copy stands in `demo.schema.json` beside this module."""
    schema = msgspec.json.schema(DemoDocument)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cumulant demo --json"} | schema


def demo_fraud_schema() -> dict[str, object]:
    """The JSON Schema of `cumulant demo-fraud --json`; a copy stands in `demo_fraud.schema.json` beside this module."""
    schema = msgspec.json.schema(FraudStory)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cumulant demo-fraud --json"} | schema
