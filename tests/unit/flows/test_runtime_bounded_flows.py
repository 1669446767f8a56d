"""`training.rows` in what comes after a first training: a last fit on all rows, a retraining, refits and a replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_runtime_chosen_rows import ME, ROWS, START, opened, payments, smallest, write

from cumulant.core.events import Actor
from cumulant.flows.monitoring.backtest.backtest import BacktestRequest, backtest_project
from cumulant.flows.monitoring.refits import refits_of
from cumulant.flows.monitoring.retraining import continue_retraining
from cumulant.flows.monitoring.state import TRAINING, RetrainRequest, read_request
from cumulant.flows.monitoring.state import write as write_state
from cumulant.flows.registry.lineage import reproduce
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.train import train
from cumulant.flows.training.training_labels import refs_of
from cumulant.monitoring.performance.rows import PredictionWindow
from cumulant.outcomes.prediction_refs import BY_KEY, SEPARATOR
from cumulant.project.file.loading import load

pytestmark = pytest.mark.slow

BOUND = 1500


def labelled(frame: pl.DataFrame, most: int = BOUND) -> pl.DataFrame:
    """The chosen rows that have a label."""
    return frame[smallest(frame, most)].drop_nulls("fraud")


def test_a_last_fit_on_all_rows_learns_the_chosen_ones(tmp_path: Path) -> None:
    with load(write(tmp_path / "all", rows=BOUND, training="  final_fit: all\n")) as project:
        found = train(project, principal=ME)
        record, chosen = find_record(project, found.model), labelled(payments())
        assert record is not None
        final, split = record.fitted.final, record.fitted.split
        assert final is not None
        assert final.rows == len(chosen) == split.train + split.test
        assert final.learned_to == chosen["at"][-1]
        assert any(f"learned from all {final.rows:,} chosen rows" in note for note in found.notes)
        assert {"search", "evaluate", "package", "register"} <= set(train(project, principal=ME).reused)
        assert reproduce(project, "payments/1", principal=ME).identical


def test_a_retraining_by_rule_learns_the_chosen_ones_of_the_rows_that_there_are_then(tmp_path: Path) -> None:
    folder = write(tmp_path / "again", rows=BOUND)
    with load(folder) as project:
        train(project, principal=ME)
    later = payments(2 * ROWS)
    with load(write(folder, rows=BOUND, frame=later)) as project:
        wanted = RetrainRequest(
            requested=datetime(2026, 12, 1, tzinfo=UTC), champion="1", trigger="schedule", sentence="It is due."
        )
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            write_state(
                transaction, TRAINING, "payments", wanted, expect=read_request(project.journal(), "payments")[1]
            )
        end = continue_retraining(project, principal=ME)
        assert end is not None
        assert end.stage in ("released", "refused"), end.message
        record = find_record(project, project.registry().resolve("payments/2"))
        assert record is not None
        split = record.fitted.split
        assert split.chosen is not None
        assert (split.chosen.rows, split.chosen.of) == (BOUND, 2 * ROWS)
        assert split.train + split.test + split.left_out == len(labelled(later))


def test_a_refit_is_asked_of_the_predictions_whose_rows_were_chosen(tmp_path: Path) -> None:
    with load(write(tmp_path / "refit", rows=BOUND)) as project, opened(project) as context:
        version = train(project, principal=ME).model
        refits = refits_of(context, version, START + timedelta(days=120))
        assert refits is not None
        assert refits.share == BOUND / ROWS
        chosen, source = labelled(payments()), payments()
        assert refits.raw["amount"].to_list() == chosen["amount"].to_list()
        assert refits.rows.features["amount"].to_list() == chosen["amount"].to_list()
        # what was logged of every row, of which most were not chosen
        fields = refits.work.task.plan.request
        moments = source["at"].dt.cast_time_unit("us").to_physical()
        wanted = pl.Series([f"{BY_KEY}{moment}{SEPARATOR}" for moment in moments])
        refs = refs_of(wanted, source, fields, source["at"].dt.replace_time_zone(None), project.salt())
        places = refits.places(refs)
        assert len(places) == len(chosen)
        assert [places[ref] for ref in refs if ref in places] == list(range(len(chosen)))
        window = PredictionWindow(START + timedelta(days=120), START + timedelta(days=160))
        within = source["at"].is_between(window.start, window.end, closed="left")
        known = refs.filter(within)
        scores = refits.scores(window, known, places)
        assert scores is not None
        held = np.array([ref in places for ref in known])
        assert np.array_equal(np.isfinite(scores), held)
        assert 0.2 < held.mean() < 0.6
        few = known.filter(pl.Series(~held))
        assert refits.scores(window, few, places) is None


@pytest.mark.parametrize("rows", [BOUND, None])
def test_a_replay_is_of_the_chosen_rows(tmp_path: Path, rows: int | None) -> None:
    with load(write(tmp_path / "replay", rows=rows)) as project:
        train(project, principal=ME)
        found = backtest_project(project, BacktestRequest(), principal=ME)
        every = labelled(payments(), rows or ROWS)
        assert len(every) - 15 <= found.rows <= len(every)
