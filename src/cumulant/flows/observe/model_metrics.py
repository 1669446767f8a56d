"""Metrics of models: drift and its decision, labels and losses, the newest release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

import msgspec

from cumulant.core.prometheus import Series
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.monitoring.state import (
    COLUMNS,
    TRAINING,
    WATCH,
    ComparedColumn,
    MonitoringState,
    RetrainRequest,
    WindowRecord,
)
from cumulant.flows.observe.families import MOST_FEATURES
from cumulant.flows.release.store import list_models, read
from cumulant.release.state import Board, Release, Status

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal


def drift_series(journal: Journal) -> Iterator[Series]:
    """Of each model the columns with the greatest effect, alarming ones first, at most `MOST_FEATURES`."""
    for row in journal.rows(COLUMNS):
        columns = msgspec.convert(row.value["columns"], tuple[ComparedColumn, ...])
        model = row.key
        yield Series("cumulant_drift_features", (model,), len(columns))
        yield Series("cumulant_drift_evaluated_timestamp_seconds", (model,), row.updated.timestamp())
        for column in largest(columns):
            labels = (model, column.feature)
            yield Series("cumulant_drift_effect", labels, column.effect)
            yield Series("cumulant_drift_alarming", labels, float(column.alarming))
            if column.missing is not None:
                yield Series("cumulant_drift_missing_ratio", labels, column.missing)


def largest(columns: Sequence[ComparedColumn]) -> list[ComparedColumn]:
    ordered = sorted(columns, key=lambda column: (not column.alarming, -column.effect, column.feature))
    return ordered[:MOST_FEATURES]


def label_series(journal: Journal) -> Iterator[Series]:
    """Of the version that is served; rows of former versions are kept under `MODEL/VERSION`."""
    for row in journal.rows(WATCH):
        if "/" in row.key:
            continue
        state, model = msgspec.convert(row.value, MonitoringState), row.key
        yield Series("cumulant_monitoring_until_timestamp_seconds", (model,), state.until.timestamp())
        harm = state.newest_harm
        yield Series("cumulant_model_harm", (model,), float(harm is not None and harm.word == "worse"))
        yield from _window_series(model, state.version, state.windows)
    for row in journal.rows(TRAINING):
        request = msgspec.convert(row.value, RetrainRequest)
        yield Series("cumulant_retraining_open", (row.key,), float(request.open))


def _window_series(model: str, version: str, windows: Sequence[WindowRecord]) -> Iterator[Series]:
    due, arrived = sum(window.rows for window in windows), sum(window.labelled for window in windows)
    yield Series("cumulant_label_due_rows", (model,), due)
    yield Series("cumulant_label_arrived_rows", (model,), arrived)
    if due:
        yield Series("cumulant_label_maturity_ratio", (model,), arrived / due)
    for kind, name in (("measured", "loss"), ("estimated", "estimated"), ("refit", "refit")):
        values = [value for window in windows if (value := getattr(window, name)) is not None]
        if values:
            yield Series("cumulant_model_loss", (model, version, kind), values[-1])


def release_series(journal: Journal) -> Iterator[Series]:
    """The newest release of each model."""
    for model in list_models(journal):
        stored = read(journal, model)
        if stored is not None:
            yield from _release(stored[0])


def _release(release: Release) -> Iterator[Series]:
    model = release.model
    names = (model, release.id, release.champion.version, release.candidate.version)
    yield Series("cumulant_release_info", names, 1)
    for status in get_args(Status):
        yield Series("cumulant_release_status", (model, status), float(status == release.status))
    yield Series("cumulant_release_step", (model,), release.at + 1)
    yield Series("cumulant_release_steps", (model,), len(release.steps))
    yield Series("cumulant_release_weight_ratio", (model,), release.weight / 100)
    is_held = bool(release.slo_hold) and not release.slo_override and not release.over
    yield Series("cumulant_release_slo_held", (model,), float(is_held))
    for arm in (CHAMPION, CANDIDATE):
        yield Series("cumulant_release_samples", (model, arm), release.samples.get(arm, 0))
    for metric, board in sorted(release.boards.items()):
        shown = verdict_word(board)
        for word in ("harmful", "worse", "acceptable", "undecided"):
            yield Series("cumulant_release_verdict", (model, metric, word), float(word == shown))


def verdict_word(board: Board) -> str:
    """What weighs most of a metric's verdict: a candidate may be worse and acceptable."""
    verdict = board.verdict
    if verdict.harmful:
        return "harmful"
    if verdict.acceptable:
        return "acceptable"
    return "worse" if verdict.worse else "undecided"
