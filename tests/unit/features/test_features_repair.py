"""The stored state of a key: shown, and made again without what was posted of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from test_features_online import HOUR, START, ask, card, history, make_plan, tx

from cumulant.core.errors import UsageError
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.repair import forget_key, read_key
from cumulant.features.posted.posted_events import log_table
from cumulant.testing.online import MemoryOnline

FAR = 24 * 365 * 60


@pytest.fixture
def world():
    """A plan by card, its history and its store."""
    plan = make_plan(n=card.count(window="2h"), total=card.sum("amount", window="1d"))
    store, frames = MemoryOnline(), {"tx": history([0, 1, 10])}
    materialize(plan, frames, store, table="t")
    return plan, frames, store, OnlineFeatures(plan, store, "t")


def shown(world, **key):
    plan, _, store, _ = world
    return read_key(plan, store, "t", key, now=START + 100 * HOUR, newest=2)


def answers(world, hours=(0.5, 1.5, 10.5, 26.0)):
    rows = [ask(hour, id=1000 + place) for place, hour in enumerate(hours)]
    found = world[3].vectors(rows)
    return found.columns, found.late


def test_a_key_is_shown_with_its_newest_events_and_those_of_the_future(world):
    world[3].advance("tx", [ask(FAR, id=50), ask(11, id=51, amount=7.0)])
    (found,) = shown(world, card="a")
    assert (found.events, found.future, found.since) == (5, 1, None)
    assert set(found.features) == {"n_2h", "total_1d"}
    assert [one.known for one in found.newest] == [START + 11 * HOUR, START + FAR * HOUR]
    assert found.newest[0].values == {"amount": 7.0}
    (nothing,) = shown(world, card="unknown")
    assert (nothing.events, nothing.newest) == (0, ())


def test_what_was_posted_is_forgotten_and_the_history_is_whole_again(world):
    plan, frames, store, online = world
    before = answers(world)
    online.advance("tx", [ask(400, id=50), ask(401, id=51), ask(FAR, id=52), ask(402, id=53, card="b")])
    assert answers(world) != before
    done = forget_key(plan, frames, store, "t", {"card": "a"})
    assert (done.rows, done.entities) == (3, 1)
    assert answers(world) == before
    assert shown(world, card="b")[0].events == 1
    # a later version is filled from the log: nothing is carried into it
    materialize(plan, frames, store, table="t")
    assert shown(world, card="a")[0].events == 3
    # the row can be posted again, at its right time
    assert online.advance("tx", [ask(11, id=52)]).accepted == 1


def test_only_rows_after_a_moment_are_forgotten(world):
    plan, frames, store, online = world
    online.advance("tx", [ask(11, id=50), ask(FAR, id=51)])
    done = forget_key(plan, frames, store, "t", {"card": "a"}, after=START + timedelta(days=30))
    assert done.rows == 1
    (found,) = shown(world, card="a")
    assert (found.events, found.future) == (4, 0)
    assert store.get(log_table("", "tx"), [b"\x00"])[0] is not None


def test_a_key_of_no_window_is_refused(world):
    with pytest.raises(UsageError, match="no window and no lookup is by amount") as caught:
        shown(world, amount="3")
    assert caught.value.hint == "write card=VALUE"


def test_several_columns_are_one_key():
    """Windows by card, by day and by both: of four rows the one of that card and that day goes, and no other's."""
    by_day, both = tx.by("day"), tx.by("card", "day")
    plan = make_plan(n=card.count(window="2h"), m=by_day.count(window="2h"), k=both.count(window="2h"))
    store, frames = MemoryOnline(), {"tx": history([0, 1, 10])}
    materialize(plan, frames, store, table="t")
    posted = [("a", "2013-04-01"), ("a", "2013-04-02"), ("b", "2013-04-01"), ("c", "2013-04-01")]
    rows = [ask(20 + at, id=50 + at, card=one, day=day) for at, (one, day) in enumerate(posted)]
    assert OnlineFeatures(plan, store, "t").advance("tx", rows).accepted == 4
    assert forget_key(plan, frames, store, "t", {"card": "a", "day": "2013-04-01"}).rows == 1
    left = read_key(plan, store, "t", {"card": "b"}, now=START + 100 * HOUR)
    assert [one.events for one in left] == [1]
    (of_a,) = read_key(plan, store, "t", {"card": "a"}, now=START + 100 * HOUR)
    assert of_a.events == 4
    with pytest.raises(UsageError, match="no window and no lookup is by card, amount"):
        forget_key(plan, frames, store, "t", {"card": "a", "amount": "3"})
