"""The references by which rows that monitoring judges are found among those of the sources."""

from datetime import timedelta
from types import SimpleNamespace

import polars as pl
from outcomes_support import KEY, NOW, micros, put

from cumulant.flows.monitoring.served_log import REF, row_references
from cumulant.outcomes.join.log_rows import IDENTITY, scan_log_keys
from cumulant.testing.log import folder_log

DAYS, EACH = 6, 40


def logged_rows(folder):
    """All rows of a log of some days: what tells them apart, their time and reference."""
    for day in range(DAYS):
        when = NOW - timedelta(days=day)
        put(
            folder,
            *(
                {
                    "id": f"{day}-{place}",
                    "card": f"c{place % 7}",
                    "number": place,
                    "at": when,
                    "time": micros(when) + place,
                    "worker": f"w{day}",
                }
                for place in range(EACH)
            ),
        )
    since = NOW - timedelta(days=DAYS)
    return pl.concat(list(scan_log_keys(folder_log(folder), KEY, since=since, until=NOW + timedelta(hours=1))))


def given(tmp_path):
    project, model = SimpleNamespace(log=lambda: folder_log(tmp_path / "predictions")), SimpleNamespace(request=KEY)
    return project, model, logged_rows(tmp_path / "predictions")


def test_each_row_has_its_own_reference_in_any_order(tmp_path):
    project, model, known = given(tmp_path)
    assert known.height == known[REF].n_unique() == DAYS * EACH
    some = known.sample(fraction=0.6, shuffle=True, seed=3)
    assert row_references(project, model, some.drop(REF)).to_list() == some[REF].to_list()


def test_a_row_that_the_log_has_not_has_none(tmp_path):
    project, model, known = given(tmp_path)
    lost = known.head(3).with_columns(worker=pl.lit("elsewhere"))
    found = row_references(project, model, pl.concat([known.tail(2), lost]).drop(REF))
    assert found.to_list() == [*known[REF].tail(2), None, None, None]
    assert row_references(project, model, known.clear().drop(REF)).to_list() == []


def test_a_batch_of_the_log_is_joined_with_the_rows_of_its_time_alone(tmp_path, monkeypatch):
    """What a join takes of memory grows with both sides: here a day's file against all rows that are asked for."""
    project, model, known = given(tmp_path)
    sizes, original = [], pl.DataFrame.join

    def join(self, other, **named):
        if list(named["on"]) == IDENTITY:
            sizes.append(other.height)
        return original(self, other, **named)

    monkeypatch.setattr(pl.DataFrame, "join", join)
    assert row_references(project, model, known.drop(REF)).to_list() == known[REF].to_list()
    assert sizes
    assert max(sizes) <= EACH
