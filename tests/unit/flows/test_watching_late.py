"""What arrives after its window was judged is counted, window by window."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from cumulant.flows.monitoring.late_labels import LateRows, count_late, counted_from
from cumulant.flows.monitoring.state import WindowRecord

FIRST, DAY = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1)
#: hours after FIRST, and whether a label is known
rows = st.lists(st.tuples(st.integers(0, 24 * 6 - 1), st.booleans()), max_size=40)


def table(found):
    moments = [FIRST + timedelta(hours=hours) for hours, _ in found]
    held = {"moment": moments, "value": [1.0 if known else None for _, known in found]}
    return pl.DataFrame(held, schema={"moment": pl.Datetime("us", "UTC"), "value": pl.Float64})


def judged(found):
    days = sorted({hours // 24 for hours, _ in found})
    parts = [(day, [known for hours, known in found if hours // 24 == day]) for day in days]
    return [
        WindowRecord(start=FIRST + day * DAY, end=FIRST + (day + 1) * DAY, rows=len(part), labelled=sum(part))
        for day, part in parts
    ]


@given(before=rows, after=rows, until=st.integers(0, 6))
def test_what_was_there_is_not_late_and_what_came_since_is(before, after, until):
    end = FIRST + until * DAY
    seen = judged([one for one in before if one[0] < 24 * until])
    found = count_late([table(before + after)], seen, DAY, since=FIRST, until=end)
    came = [known for hours, known in after if hours < 24 * until]
    assert found == LateRows(rows=len(came), labels=sum(came))


def test_what_is_gone_from_the_log_makes_up_for_nothing():
    seen = judged([(1, True), (2, True), (30, True)])
    found = count_late([table([(30, True), (31, False)])], seen, DAY, since=FIRST, until=FIRST + 2 * DAY)
    assert found == LateRows(rows=1, labels=0)
    assert "1 row came after" in found.sentence
    assert LateRows().sentence == ""
    assert "1,200 rows and 1 label came" in LateRows(rows=1200, labels=1).sentence


def test_windows_that_are_kept_no_more_make_no_row_late():
    seen = judged([(hour, True) for hour in range(24 * 3)])
    assert counted_from(seen, 3, FIRST - DAY) == FIRST
    assert counted_from(seen, 4, FIRST - DAY) == FIRST - DAY
