"""A report whose counts are stored says what one says that counts again, and no longer than that is so."""

import os
import shutil
from datetime import date, timedelta

import pytest
from outcomes_support import KEY, NOW, logs, micros, opened, put, report, tell

from cumulant.outcomes.labels import cohorts
from cumulant.outcomes.labels.stored_counts import NAME, stored_report
from cumulant.ports.log import current_parts
from cumulant.testing.log import folder_log

KNOWN = (NOW - timedelta(hours=1)).isoformat()
LATER = NOW + timedelta(days=2)


@pytest.fixture
def counted(monkeypatch):
    """The moments at which labels were counted."""
    moments, count = [], cohorts.count

    def counting(outcomes, now):
        moments.append(now)
        return count(outcomes, now)

    monkeypatch.setattr(cohorts, "count", counting)
    return moments


def stored(tmp_path, now=NOW, **options):
    return stored_report(
        logs(tmp_path / "outcomes"), folder_log(tmp_path / "log"), now, key=options.pop("key", lambda: KEY), **options
    )


def log_of_days(tmp_path):
    """Two weeks of predictions, of which some have a label, two, or one that is known later."""
    for number in range(14):
        at = NOW - timedelta(days=number)
        one = {"at": at, "time": micros(at), "version": str(number % 2 + 1), "arm": ("", "champion")[number % 3 == 0]}
        put(tmp_path / "log", {**one, "id": f"r{number}"}, {**one, "id": f"s{number}", "shadow": True})
    told = [{"id": f"r{number}", "label": number % 3 == 0, "known_time": KNOWN} for number in range(9)]
    again = [told[1], {**told[2], "label": True}, {**told[3], "label": False}]
    later = {"id": "r12", "label": True, "known_time": LATER.isoformat()}
    tell(
        tmp_path / "outcomes", *told, *again, later, {"id": "nobody", "label": True, "known_time": KNOWN}, {"id": "r11"}
    )


@pytest.mark.parametrize("by", ["day", "week"])
@pytest.mark.parametrize("days", [(None, None), (11, 3), (None, 5), (2, None)])
def test_a_stored_report_equals_one_that_counts_again(tmp_path, by, days, counted):
    log_of_days(tmp_path)
    since, until = (None if one is None else (NOW - timedelta(days=one)).date() for one in days)
    options = {"by": by, "since": since, "until": until}
    stored(tmp_path)
    counted.clear()
    for now in (NOW, LATER + timedelta(seconds=1)):
        assert stored(tmp_path, now, **options) == report(opened(tmp_path), now, **options)
    assert len(counted) == 3  # of which two are those of `report`


def test_weeks_begin_on_monday_and_are_sums_of_days(tmp_path):
    log_of_days(tmp_path)
    weeks, days = stored(tmp_path, by="week"), stored(tmp_path)
    assert {one.start.weekday() for one in weeks.cohorts} == {0}
    assert len(weeks.cohorts) < len(days.cohorts)
    assert weeks.labelled == days.labelled > 0
    assert list(weeks.cohorts) == sorted(weeks.cohorts, key=lambda one: (one.start, one.model, one.version, one.arm))
    assert isinstance(weeks.cohorts[0].start, date)


def test_counts_are_made_once_and_again_when_something_changed(tmp_path, counted):
    log_of_days(tmp_path)
    for _ in range(2):
        first = stored(tmp_path)
    assert len(counted) == 1
    tell(tmp_path / "outcomes", {"id": "r13", "label": True, "known_time": KNOWN})
    assert stored(tmp_path).labelled == first.labelled + 1
    put(tmp_path / "log", {"id": "new"})
    assert stored(tmp_path).predictions == first.predictions + 1
    assert len(counted) == 3
    held = tmp_path / "outcomes" / "joined" / NAME
    held.write_bytes(held.read_bytes()[:-1] + b"?")
    assert stored(tmp_path) == report(opened(tmp_path), NOW)


def test_counts_are_made_again_where_a_file_was_replaced_by_one_of_the_same_size_and_time(tmp_path, counted):
    log_of_days(tmp_path)
    stored(tmp_path)
    (path, *_) = [tmp_path / "log" / part.key for part in current_parts(folder_log(tmp_path / "log"))]
    before = path.stat()
    shutil.copy2(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stored(tmp_path)
    assert len(counted) == 2


def test_counts_hold_until_the_next_label_is_known_and_not_before_the_last(tmp_path, counted):
    log_of_days(tmp_path)
    early = stored(tmp_path)
    assert stored(tmp_path, LATER - timedelta(seconds=1)) == early
    assert stored(tmp_path, LATER).labelled == early.labelled + 1
    assert stored(tmp_path, NOW - timedelta(days=1)).labelled == 0  # by a clock that was set back
    assert len(counted) == 3


def test_labels_by_a_key_are_counted_again_when_the_model_has_another(tmp_path, counted):
    at = NOW - timedelta(hours=3)
    put(tmp_path / "log", {"id": "a", "at": at, "card": "c7", "number": 2})
    tell(tmp_path / "outcomes", {"card": "c7", "number": 2, "at": at.isoformat(), "label": True, "known_time": KNOWN})
    assert [stored(tmp_path).labelled for _ in range(2)] == [1, 1]
    assert len(counted) == 1
    assert stored(tmp_path, key=lambda: KEY[1:]).labelled == 0
    assert len(counted) == 2


def test_nothing_is_stored_where_there_are_no_labels(tmp_path):
    put(tmp_path / "log", {"id": "a"})
    assert stored(tmp_path).predictions == 1
    assert not (tmp_path / "outcomes").exists()
