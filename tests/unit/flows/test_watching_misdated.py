"""Rows of a log that are dated in the future are no part of its drift profile."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from test_watching_days import reference, write

from cumulant.core.errors import ContractBreachError, DataError
from cumulant.flows.monitoring.drift.sides import MonitorRequest
from cumulant.flows.monitoring.monitor import monitor, notes
from cumulant.monitoring.drift.words import sentence
from cumulant.monitoring.policy import DriftPolicy

FIRST, DAYS = date(2026, 3, 1), 6
NOW = datetime(2026, 3, 6, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(day, hours=0):
    return datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(days=day, hours=hours)


def rows(day, dated):
    """Rows answered at the midnight of a day, and dated some hours after that, as the reference has them."""
    return [
        (at(day) + ahead, {"x": place * place % 11, "kind": ("a", "b", "1", "2.5")[place % 4]}, {"p": place % 7 / 7})
        for place, ahead in enumerate(dated)
    ]


def fill(folder, wrong, of=range(DAYS)):
    """Thirty rows a day; on the days `of` some more, dated as `wrong` says."""
    for day in range(DAYS):
        write(folder, FIRST + timedelta(days=day), rows(day, [timedelta(minutes=30)] * 30))
        if day in of:
            write(folder, FIRST + timedelta(days=day), rows(day, wrong), number=2)


def looked(root, *, keep, now=NOW, **asked):
    asked = MonitorRequest(predictions=root / "log", reference=reference(root), now=now, **asked)
    return monitor(asked, DriftPolicy(), keep=root / "kept" if keep else None)


def profile(found):
    return (found.drift.windows, found.drift.columns, found.drift.findings, found.drift.newest)


@pytest.mark.parametrize("keep", [True, False])
def test_a_row_of_the_next_year_is_no_window_of_its_own_and_is_told(tmp_path, keep):
    fill(tmp_path / "plain" / "log", [])
    fill(tmp_path / "wrong" / "log", [timedelta(days=365)] * 40)
    plain, wrong = (looked(tmp_path / name, keep=keep) for name in ("plain", "wrong"))
    assert profile(wrong) == profile(plain)
    assert (wrong.rows, wrong.coming, plain.coming) == (plain.rows, 40 * DAYS, 0)
    told = "240 rows are dated later than now and count from then on; a clock may be wrong"
    assert told in notes(wrong)
    assert "dated after" not in " ".join(notes(plain))
    assert looked(tmp_path / "wrong", keep=keep) == wrong


def test_dates_of_more_windows_than_a_look_may_have_stop_no_look(tmp_path):
    """Each row in another window: they would be too many to compare."""
    fill(tmp_path / "log", [timedelta(days=100 + place) for place in range(5_100)], of=[0])
    assert looked(tmp_path, keep=True).rows == 30 * DAYS


@pytest.mark.parametrize("keep", [True, False])
def test_beyond_the_declared_skew_rows_are_a_data_fault_on_any_day(tmp_path, keep):
    """Rows that were dated two days ahead have a past time by now, and are of the wrong window all the same."""
    fill(tmp_path / "plain" / "log", [timedelta(minutes=40)] * 5, of=[1, 3])
    fill(tmp_path / "wrong" / "log", [timedelta(minutes=40)] * 5 + [timedelta(days=2)] * 8, of=[1, 3])
    plain, wrong = (looked(tmp_path / name, keep=keep, skew=HOUR) for name in ("plain", "wrong"))
    assert profile(wrong) == profile(plain)
    (found,) = [one for one in wrong.findings if one.what == "future"]
    assert (found.kind, found.now, found.windows, found.active) == ("data_fault", 16, 2, False)
    assert sentence(found).startswith("16 rows are dated after they were answered by more than serving.clock_skew")
    assert (wrong.alarming, wrong.coming) == (True, 0)
    again = looked(tmp_path / "wrong", keep=keep)
    assert again.rows == wrong.rows + 16, "without a declared skew they count from their own time on"
    assert all(one.what != "future" for one in again.findings)


def test_the_fault_is_active_while_the_newest_day_has_some(tmp_path):
    fill(tmp_path / "log", [timedelta(days=300)], of=[4, 5])
    (found,) = [one for one in looked(tmp_path, keep=True, skew=HOUR).findings if one.what == "future"]
    assert (found.active, found.now) == (True, 2)


@pytest.mark.parametrize("keep", [True, False])
def test_a_log_of_such_rows_alone_says_why_none_is_compared(tmp_path, keep):
    write(tmp_path / "log", FIRST, rows(0, [timedelta(days=2)] * 30))
    write(tmp_path / "log", FIRST, rows(0, [timedelta(days=30)] * 30), number=2)
    # A scheduled round takes a DataError for nothing to watch, and would be silent while all clocks are wrong.
    with pytest.raises(ContractBreachError, match=r"all 60 predictions in .* 60 by more than serving\.clock_skew"):
        looked(tmp_path, keep=keep, skew=HOUR)
    with pytest.raises(DataError, match=r"all 60 predictions in .* are dated after this look") as caught:
        looked(tmp_path, keep=keep, now=at(1))
    assert caught.value.hint == "correct the clock of the callers, if it is wrong; they count when their time has come"
