"""Rows that wait for the disk are bounded in number, and none that was answered is lost."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime

import pytest
from serving_models import SALT, WINDOWED, fill_state, flights, servable, windowed_model

from cumulant.core.errors import EngineUnavailableError
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.posted.state_updates import StateRecorder


class Held:
    """An advancer whose disk answers when it is told to."""

    def __init__(self):
        self.posts = []

    def post(self, source, rows, *, scored=False):
        self.posts.append(Future())
        return self.posts[-1]


def test_rows_beyond_what_may_wait_are_refused_until_some_are_on_the_disk():
    recorder, disk = StateRecorder(most=10), Held()
    rows = [{"x": 1}] * 4
    for _ in range(2):
        recorder._posted(disk, "flights", rows)
    with pytest.raises(EngineUnavailableError, match="8 rows wait"):
        recorder._posted(disk, "flights", rows)
    disk.posts[0].set_result(AdvanceResult(accepted=4))
    recorder._posted(disk, "flights", rows)
    disk.posts[1].set_exception(EngineUnavailableError("busy"))
    recorder._posted(disk, "flights", rows)
    assert recorder._waiting == 8


def test_one_large_post_is_taken_where_nothing_waits():
    recorder, disk = StateRecorder(most=10), Held()
    recorder._posted(disk, "flights", [{"x": 1}] * 50)
    with pytest.raises(EngineUnavailableError):
        recorder._posted(disk, "flights", [{"x": 1}] * 50)


@pytest.mark.parametrize("after", [0, 1])
def test_a_row_that_is_answered_after_its_model_was_taken_away_is_not_lost(tmp_path, after):
    """`after`: how many models take the place of the one that still answers what it had accepted."""
    url = f"sqlite://{tmp_path / 'online.db'}"
    sample = {"hour": [1, 2], "late_1d": [0.5, None]}
    folder = servable(tmp_path / "servable", plan=WINDOWED, model=windowed_model(), sample=sample)
    store = SqliteOnline(url)
    fill_state(store, WINDOWED, {"flights": flights(30).lazy()}, table="flight-late-state")
    row = {"distance": 500.0, "sched_dep": datetime(2013, 4, 3, tzinfo=UTC), "carrier": "UA", "tail": "N9"}
    old, *new = [RowModel(folder, store=store, salt=SALT) for _ in range(1 + after)]
    recorder = StateRecorder()
    try:
        recorder.put([old])
        recorder.put(new)
        done = recorder.record_scored(old, [row])
        assert done is not None, "it is answered without being stored"
        assert done.result(10).accepted == 1
        recorder.put([old])
        again = recorder.record_scored(old, [row])
        assert again is not None
        assert (again.result(10).accepted, again.result(10).duplicates) == (0, 1)
    finally:
        recorder.close()
        for model in (old, *new):
            model.close()
        store.close()
