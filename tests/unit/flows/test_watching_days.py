"""Kept profiles of the days of a log: the same counts as all rows at once, and only what is new is read."""

import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prediction_rows import prediction_row

from cumulant.core.errors import DataError, StorageError
from cumulant.data.parts import collected_frames
from cumulant.flows.monitoring.drift.log_days import LogSource, load_log_windows
from cumulant.flows.monitoring.drift.sides import MonitorRequest
from cumulant.flows.monitoring.drift.window_counts import TableWindows
from cumulant.flows.monitoring.monitor import monitor
from cumulant.flows.monitoring.result_cache import ResultCache
from cumulant.monitoring import tables
from cumulant.monitoring.drift.blocks import by_time
from cumulant.monitoring.policy import DriftPolicy
from cumulant.monitoring.tables import open_table
from cumulant.serving.prediction_log.storage.log_reader import recent_predictions
from cumulant.serving.prediction_log.storage.part_writer import LogPart
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow

FIRST = date(2026, 3, 1)
FIRST_MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = DriftPolicy()


def write(folder, day, rows, number=1, life="a"):
    """One file of the log. A row: moment, request, answer."""
    part = LogPart(folder, (day - date(1970, 1, 1)).days, life, number)
    at = datetime.combine(day, datetime.min.time(), UTC)
    for place, (moment, asked, said) in enumerate(rows):
        row = prediction_row(
            id=f"r{place}",
            time=at,
            event_time=moment,
            model="m",
            version="1",
            request=json.dumps(asked),
            outputs=json.dumps(said),
            worker=f"w.{life}.{number}",
            sequence=place + 1,
        )
        part.add(row, 300)
    part.close()


def reference(folder, rows=120):
    frame = pl.DataFrame(
        {
            "moment": [datetime(2026, 2, 1 + row % 20, tzinfo=UTC) for row in range(rows)],
            "x": [float(row * row % 11) for row in range(rows)],
            "kind": [("a", "b", "1", "2.5")[row % 4] for row in range(rows)],
            "answer.p": [row % 7 / 7 for row in range(rows)],
        }
    )
    frame.write_parquet(folder / "reference.parquet")
    return folder / "reference.parquet"


# Numbers with a point among texts are left out: read at once beside texts 1 becomes "1.0", on a day of numbers "1".
values = st.fixed_dictionaries(
    {},
    optional={
        "x": st.one_of(st.none(), st.integers(-3, 12), st.floats(-3, 20, allow_nan=False, width=32)),
        "kind": st.one_of(st.none(), st.sampled_from(["a", "b", "c", "", "1"]), st.sampled_from([1, 2])),
        "more": st.integers(0, 3),
    },
)
row = st.tuples(st.integers(-30, 30), values, st.fixed_dictionaries({"p": st.floats(0, 1, width=32)}))
logs = st.lists(st.lists(row, min_size=1, max_size=12), min_size=1, max_size=5)


def fill(folder, days):
    for place, rows in enumerate(days):
        day = FIRST + timedelta(days=place)
        at = datetime.combine(day, datetime.min.time(), UTC)
        if not rows:
            continue
        write(folder, day, [(at + timedelta(hours=hours), asked, said) for hours, asked, said in rows])


def side(root):
    table = replace(open_table(reference(root)), is_log=True)
    return TableWindows(table, by_time(table.series("moment"), timedelta(days=1)))


def counts(profile):
    """A profile without examples, which are those of the first days."""
    columns = tuple(msgspec.structs.replace(one, examples=()) for one in profile.columns)
    return msgspec.structs.replace(profile, columns=columns, extra=())


@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(days=logs)
def test_days_one_by_one_are_all_at_once(tmp_path_factory, days):
    root = tmp_path_factory.mktemp("days")
    fill(root / "log", [[(0, {"x": 1}, {"p": 0.5}), *days[0]], *days[1:]])
    table = open_table(root / "log")
    whole = TableWindows(table, by_time(table.series("moment"), timedelta(days=1)))
    found = windows(root)
    assert set(found.columns) == set(table.columns)
    roles = {name: "feature" for name in ("x", "kind", "answer.p") if name in table.columns}
    before, now = whole.against(side(root), roles)
    first = found.against(found.reference, roles)
    assert counts(first[0]) == counts(before)
    assert counts(first[1]) == counts(now)
    kept = windows(root)
    again = kept.against(kept.reference, roles)
    assert (again, kept.fresh) == (first, [])


def test_a_look_says_the_same_as_one_at_all_rows(root):
    fill(root / "log", [[]] * 6 + [[(hour % 24, {"x": 40 + hour, "kind": "new"}, {"p": 0.9}) for hour in range(30)]])
    asked = MonitorRequest(predictions=root / "log", reference=reference(root))
    whole, first, again = (monitor(asked, SPEC, keep=keep) for keep in (None, root / "kept", root / "kept"))
    assert {one.feature for one in whole.drift.findings} >= {"x", "kind"}
    assert first == again == whole


def test_rows_that_are_set_aside_are_looked_at_alike(root, monkeypatch):
    rows = [(hour % 24, {"x": hour % 7 if hour < 20 else "far", "kind": "new"}, {"p": 0.9}) for hour in range(30)]
    fill(root / "log", [[]] * 6 + [rows, [(3, {"x": 1.5, "more": {"deep": {}}}, {"p": 0.1})], rows])
    labels = root / "labels.parquet"
    pl.DataFrame({"id": [f"r{row}" for row in range(30)], "y": [row % 2 for row in range(30)]}).write_parquet(labels)
    asked = MonitorRequest(
        predictions=root / "log", reference=reference(root), now=FIRST_MOMENT + timedelta(days=8, hours=2)
    )
    looks = [(asked, None), (replace(asked, labels=labels), None), (replace(asked, windows=3), None)]
    at_once = [monitor(one, SPEC, keep=keep) for one, keep in [*looks, (asked, root / "kept")]]
    monkeypatch.setattr(collected_frames, "_HELD", 10)
    monkeypatch.setattr(tables, "_PART", 7)
    scratch = root / "scratch"
    assert [
        monitor(one, SPEC, keep=keep, scratch=scratch) for one, keep in [*looks, (asked, root / "again")]
    ] == at_once
    assert at_once[0].coming > 0
    assert not [*scratch.iterdir()]


def windows(root, log="log", cache="kept", **options):
    source = LogSource(log=folder_log(root / log), length=timedelta(days=1), **options)
    return load_log_windows(source, side(root), ResultCache(root / cache, "k"))


def days(count, start=0):
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return [
        [(at + timedelta(days=start + place, hours=row), {"x": row, "kind": "a"}, {"p": 0.5}) for row in range(20)]
        for place in range(count)
    ]


@pytest.fixture
def root(tmp_path):
    for place, rows in enumerate(days(6)):
        write(tmp_path / "log", FIRST + timedelta(days=place), rows)
    return tmp_path


def looked(root):
    found = windows(root)
    _, current = found.against(found.reference, {"x": "feature", "kind": "feature", "answer.p": "prediction"})
    return found.fresh, current


def test_only_new_days_are_read(root):
    first, counted = looked(root)
    assert len(first) == 6
    assert looked(root) == ([], counted)
    write(root / "log", FIRST + timedelta(days=6), days(1, 6)[0])
    fresh, more = looked(root)
    assert fresh == [FIRST + timedelta(days=6)]
    assert (more.rows, len(more.blocks)) == (counted.rows + 20, 7)


def test_a_late_row_makes_its_day_anew_and_adds_to_its_window(root):
    _, counted = looked(root)
    late = (datetime(2026, 3, 2, 5, tzinfo=UTC), {"x": 3, "kind": "b"}, {"p": 0.1})
    write(root / "log", FIRST + timedelta(days=4), [late], number=2)
    fresh, more = looked(root)
    assert fresh == [FIRST + timedelta(days=4)]
    assert [block.rows for block in more.blocks] == [20, 21, 20, 20, 20, 20]
    assert more.rows == counted.rows + 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_profile_is_made_again(root, damage):
    _, counted = looked(root)
    for name in ("2026-03-03", "reference"):
        (path,) = (root / "kept").glob(f"*/{name}")
        held = bytearray(path.read_bytes())
        if damage == "flipped":
            held[len(held) // 2] ^= 1
        path.write_bytes({"cut": held[:-3], "flipped": held, "empty": b"", "other": b"x" * 100}[damage])
    fresh, again = looked(root)
    assert (fresh, again) == ([date(2026, 3, 3)], counted)
    assert looked(root) == ([], counted)


def test_a_folder_that_cannot_be_written_costs_only_time(root):
    (root / "kept").write_text("in the way")
    fresh, counted = looked(root)
    assert (len(fresh), counted.rows) == (6, 120)
    assert looked(root) == (fresh, counted)


def test_profiles_of_old_references_go(root):
    for place in range(6):
        old = root / "kept" / f"old{place}"
        old.mkdir(parents=True)
        os.utime(old, (place, place))
    looked(root)
    assert sorted(path.name for path in (root / "kept").glob("old*")) == ["old3", "old4", "old5"]


def test_a_request_without_rows_of_an_earlier_version_does_not_count(root):
    day = [[(hour, {"x": hour % 11, "kind": "a"}, {"p": 0.5}) for hour in range(19)]]
    fill(root / "full", day)
    fill(root / "empty", [[*day[0], (3, {}, {})]])
    plain, mixed = (
        monitor(MonitorRequest(predictions=root / name, reference=reference(root)), SPEC, keep=root / f"{name}-kept")
        for name in ("full", "empty")
    )
    assert (mixed.rows, mixed.drift) == (19, plain.drift)
    assert len(recent_predictions(folder_log(root / "empty"), limit=30)) == 19


def test_a_damaged_file_of_the_log_is_named(root):
    (path,) = (root / "log" / "date=2026-03-03").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match="cannot be read"):
        looked(root)


def test_rows_of_windows_come_from_their_days_alone(root):
    found = windows(root)
    frame, codes = found.rows(["x", "absent"], 1, 2)
    assert (frame.height, sorted(set(codes.tolist()))) == (40, [1, 2])
    assert frame["absent"].null_count() == 40


@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(days=logs, hours=st.integers(-30, 150))
def test_a_look_at_the_past_counts_what_a_log_that_ends_there_holds(tmp_path_factory, days, hours):
    root = tmp_path_factory.mktemp("log")
    end = datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(hours=hours)
    fill(root / "log", days)
    kept = [
        [row for row in rows if FIRST_MOMENT + timedelta(days=place, hours=row[0]) < end]
        for place, rows in enumerate(days)
    ]
    whole = windows(root)
    roles = dict.fromkeys(("x", "kind"), "feature") | {"answer.p": "prediction"}
    all_counts = counts(whole.against(whole.reference, roles)[1])
    if not any(kept):
        with pytest.raises(DataError, match="is of before"):
            windows(root, before=end)
        return
    past = windows(root, before=end)
    fill(root / "past", kept)
    apart = windows(root, "past", "other")
    expected = apart.against(apart.reference, roles)[1]
    assert counts(past.against(past.reference, roles)[1]) == counts(expected)
    last = len(expected.blocks) - 1
    here, codes = past.rows(["x", "answer.p"], 0, last)
    there, others = apart.rows(["x", "answer.p"], 0, last)
    assert (here["x"].cast(float).to_list(), codes.tolist()) == (there["x"].cast(float).to_list(), others.tolist())
    assert not past.fresh, "every day was counted before"
    again = windows(root)
    assert counts(again.against(again.reference, roles)[1]) == all_counts
    assert not again.fresh
