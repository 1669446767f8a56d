"""Settings of the process while a server runs."""

from __future__ import annotations

import gc

from cumulant.serving.workers.event_loops import loaded_objects_frozen


def test_what_is_loaded_is_not_looked_at_by_the_garbage_collector_while_a_server_runs():
    before = gc.get_freeze_count()  # what this process of the tests has collected
    loaded = [[]]
    with loaded_objects_frozen():
        made = [[]]
        assert gc.get_freeze_count() > before
        looked_at = {id(each) for each in gc.get_objects()}
        assert id(made) in looked_at
        assert id(loaded) not in looked_at
    assert gc.get_freeze_count() == 0
    if before:
        gc.freeze()
