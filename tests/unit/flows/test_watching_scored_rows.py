"""Rows of a look by window: as if all of them were sorted at once, with few of them in memory."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from cumulant.data.parts.spill import spill_in
from cumulant.flows.monitoring import scored_rows
from cumulant.flows.monitoring.scored_rows import ScoredRows

FIRST, HOUR = datetime(2026, 3, 1, tzinfo=UTC), timedelta(hours=1)
SCHEMA = {"moment": pl.Datetime("us", "UTC"), "score": pl.Array(pl.Float64, 2), "id": pl.String}


def frame(chance, number, rows):
    """Rows of a file, of which many are of one moment."""
    each = [(FIRST + chance.randrange(60) * HOUR, [chance.random()] * 2, f"{number}.{row}") for row in range(rows)]
    return pl.DataFrame(each, schema=SCHEMA, orient="row")


def collected(spill, frames, length, since, until):
    found = ScoredRows(spill, "scored", length, since=since, until=until)
    order = list(enumerate(frames))
    random.Random(len(frames)).shuffle(order)  # files that changed are joined after the others
    for number, one in order:
        found.add(number, one)
    return found


@pytest.mark.parametrize("held", [3, 20, 10_000])
@pytest.mark.parametrize("seed", range(10))
def test_rows_come_by_window_in_the_order_of_all(monkeypatch, seed, held):
    monkeypatch.setattr(scored_rows, "_HELD", held)
    chance = random.Random(seed)
    frames = [frame(chance, number, chance.randrange(15)) for number in range(9)]
    length, since, until = chance.choice([1, 6, 24]) * HOUR, FIRST + 5 * HOUR, FIRST + 50 * HOUR
    asked = [(None, None), (since + 2.5 * HOUR, None), (since + 7 * HOUR, since + 22.5 * HOUR), (until, since)]
    whole = pl.concat(frames).sort("moment", maintain_order=True)
    whole = whole.filter(pl.col("moment").is_between(since, until, closed="left"))
    with spill_in(None) as spill:
        found = collected(spill, frames, length, since, until)
        for begin, end in asked:
            own = whole if begin is None else whole.filter(pl.col("moment") >= begin)
            own = own if end is None else own.filter(pl.col("moment") < end)
            read = list(found.windows(begin, end))
            assert pl.concat([own.clear(), *(rows for _, rows in read)]).equals(own)
            for window, rows in read:
                assert window.end - window.start == length
                assert rows["moment"].is_between(window.start, window.end, closed="left").all()
            groups = list(found.groups(begin, end))
            assert [window for group in groups for window, _ in group] == [window for window, _ in read]
            assert all(sum(rows.height for _, rows in group[:-1]) < held for group in groups)


def test_rows_that_are_many_do_not_stay_in_memory(monkeypatch):
    monkeypatch.setattr(scored_rows, "_HELD", 50)
    chance = random.Random(1)
    with spill_in(None) as spill:
        found = collected(spill, [frame(chance, number, 40) for number in range(20)], HOUR, FIRST, FIRST + 60 * HOUR)
        assert sum(rows.height for rows in found._held) <= 50
        assert sum(rows.height for _, rows in found.windows()) == 800
        assert not found._in_memory


def test_nothing_is_there_where_nothing_came():
    with spill_in(None) as spill:
        assert list(ScoredRows(spill, "scored", HOUR, since=FIRST, until=FIRST + HOUR).groups()) == []
