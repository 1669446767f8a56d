"""Rows that wait for the disk are bounded in number."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from cumulant.core.errors import EngineUnavailableError
from cumulant.features import Advanced
from cumulant.serving.recording import Recorder


class Held:
    """An advancer whose disk answers when it is told to."""

    def __init__(self):
        self.posts = []

    def post(self, source, rows):
        self.posts.append(Future())
        return self.posts[-1]


def test_rows_beyond_what_may_wait_are_refused_until_some_are_on_the_disk():
    recorder, disk = Recorder(most=10), Held()
    rows = [{"x": 1}] * 4
    for _ in range(2):
        recorder._posted(disk, "flights", rows)
    with pytest.raises(EngineUnavailableError, match="8 rows wait"):
        recorder._posted(disk, "flights", rows)
    disk.posts[0].set_result(Advanced(accepted=4))
    recorder._posted(disk, "flights", rows)
    disk.posts[1].set_exception(EngineUnavailableError("busy"))
    recorder._posted(disk, "flights", rows)
    assert recorder._waiting == 8


def test_one_large_post_is_taken_where_nothing_waits():
    recorder, disk = Recorder(most=10), Held()
    recorder._posted(disk, "flights", [{"x": 1}] * 50)
    with pytest.raises(EngineUnavailableError):
        recorder._posted(disk, "flights", [{"x": 1}] * 50)
