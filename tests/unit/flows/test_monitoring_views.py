"""What monitoring stores for pages: drift of each column over the windows, and quality with its intervals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import NotFoundError
from cumulant.core.events import Actor
from cumulant.flows.monitoring import monitoring_views
from cumulant.flows.monitoring.drift.drift_history import HISTORY, drift_history
from cumulant.flows.monitoring.drift.drift_page import DriftPageSource
from cumulant.flows.monitoring.evaluation import _mean_with_interval
from cumulant.flows.monitoring.state import WATCH, MonitoringState, WindowRecord
from cumulant.monitoring.drift.blocks import by_time
from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.profiling import profile
from cumulant.monitoring.events import RetrainingProgressed, RetrainingRequested
from cumulant.monitoring.policy import DriftPolicy
from cumulant.monitoring.retrain_rule import RetrainState
from cumulant.project.file.loading import load

START, DAY = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1)
PROJECT = """\
version: 1
model: {name: shop, owner: shop@example.com, purpose: test}
data: {visits: {path: visits.csv, key: visit}}
"""


def rows(days, *, moved_from=None, seed=0):
    dice, count = np.random.default_rng(seed), 400
    frames = []
    for day in range(days):
        moved = moved_from is not None and day >= moved_from
        at = [START + day * DAY + timedelta(seconds=200 * number) for number in range(count)]
        frames.append(
            pl.DataFrame(
                {
                    "at": at,
                    "amount": dice.normal(3.0 if moved else 0.0, 1, count),
                    "kind": dice.choice(["<b>x</b>", "hat"], count),
                }
            )
        )
    return pl.concat(frames)


@pytest.fixture(scope="module")
def look():
    roles, policy = {"amount": "feature", "kind": "feature"}, DriftPolicy()
    before, now = rows(20, seed=1), rows(10, moved_from=6, seed=2)
    reference = profile(before, roles, cut=by_time(before["at"], DAY))
    current = profile(now, roles, cut=by_time(now["at"], DAY), like=reference)
    return DriftPageSource("log", "training", compare(reference, current, policy), None, reference, current, ())


def test_a_column_that_moved_is_confirmed_from_the_window_of_its_change(look):
    history = drift_history(look, DriftPolicy(), version="3", weights={"kind": 2.0, "amount": 0.5})
    assert [column.feature for column in history.columns] == ["kind", "amount"]
    kind, amount = history.columns
    assert (history.version, len(history.windows), history.hidden) == ("3", 10, 0)
    assert min(amount.confirmed) == 6
    assert kind.confirmed == ()
    assert all(effect > 1 for effect in amount.effects[6:])
    assert all(effect < 1 for effect in amount.effects[:6])
    assert sum(kind.now) == 400 * history.newest
    assert kind.cells.values
    assert not kind.cells.known
    assert amount.findings[0].active
    # what is stored is what is read
    assert msgspec.convert(msgspec.to_builtins(history), type(history)) == history


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=50),
    st.floats(0.5, 20),
)
def test_the_interval_of_a_mean_holds_it_and_does_not_depend_on_the_unit_of_weights(losses, unit):
    values = np.array(losses)
    mean, low, high = _mean_with_interval(values, np.ones(len(values)))
    assert low <= mean <= high
    again = _mean_with_interval(values, np.full(len(values), unit))
    assert again == pytest.approx((mean, low, high), rel=1e-6, abs=1e-9)


def test_the_interval_is_that_of_independent_rows():
    losses = np.random.default_rng(0).random(1000)
    mean, low, high = _mean_with_interval(losses, np.ones(1000))
    assert high - low == pytest.approx(2 * 1.96 * losses.std() / np.sqrt(1000))
    assert _mean_with_interval(losses[:1], np.ones(1))[1:] == (None, None)
    assert mean == pytest.approx(losses.mean())


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    with load(tmp_path) as loaded:
        yield loaded


def state(version, first, **more):
    windows = tuple(
        WindowRecord(start=START + day * DAY, end=START + (day + 1) * DAY, rows=100, labelled=90, loss=0.2)
        for day in range(first, first + 3)
    )
    return MonitoringState(
        version=version,
        since=START + first * DAY,
        until=windows[-1].end,
        retrain=RetrainState(trained=START),
        windows=windows,
        **more,
    )


def test_quality_is_of_each_version_that_served_with_windows_that_wait_for_labels(project):
    who = project.principal()
    assert monitoring_views.quality(project, principal=who) is None
    assert monitoring_views.drift(project, principal=who) is None
    waits = WindowRecord(start=START + 9 * DAY, end=START + 10 * DAY, rows=50, labelled=1)
    with project.journal().transaction(actor=Actor("t")) as transaction:
        transaction.put(WATCH, "shop", msgspec.to_builtins(state("2", 6, pending=(waits,), reference_loss=0.25)))
        transaction.put(WATCH, "shop/1", msgspec.to_builtins(state("1", 0)))
        transaction.put(WATCH, "shop/2", msgspec.to_builtins(state("2", 3)))
    view = monitoring_views.quality(project, principal=who)
    assert (view.version, view.mature, view.windows[-1], view.reference_loss) == ("2", 3, waits, 0.25)
    assert [each.version for each in view.versions] == ["2", "1"]
    assert view.windows[0].start == START + 6 * DAY
    assert monitoring_views.quality(project, principal=who, version="1").mature == 3
    with pytest.raises(NotFoundError):
        monitoring_views.quality(project, principal=who, version="7")


def test_retraining_is_listed_with_the_newest_step_first(project, look):
    who = project.principal()
    history = drift_history(look, DriftPolicy(), version="3", weights={})
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(HISTORY, "shop", msgspec.to_builtins(history))
        transaction.emit(RetrainingRequested(model="shop", champion="2", trigger="harm", reason="it loses more"))
        transaction.emit(
            RetrainingProgressed(model="shop", stage="trained", candidate="shop/3", release=None, reason="passed")
        )
    view = monitoring_views.retraining(project, principal=who)
    assert [(step.stage, step.champion, step.candidate) for step in view.steps] == [
        ("trained", None, "shop/3"),
        ("requested", "2", None),
    ]
    assert view.request is None
    assert monitoring_views.drift(project, principal=who) == history
