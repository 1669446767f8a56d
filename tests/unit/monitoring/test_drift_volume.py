"""Numbers of rows: a day without half of its rows or without any is a finding, and what varies by itself is none."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cumulant.core.units import to_micros
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.monitoring.drift.volume import row_counts
from cumulant.monitoring.drift.words import day, sentence
from cumulant.monitoring.policy import DriftPolicy

START, DAY = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=1)
WEEK = np.array([1, 1.1, 1.05, 1, 1.2, 0.5, 0.4])


def counts(seed, days, *, dispersion=0.005, mean=500, growth=0.0, week=WEEK):
    generator, place = np.random.default_rng(seed), np.arange(days)
    means = mean * week[place % 7] * (1 + growth) ** place
    return generator.poisson(means * generator.gamma(1 / dispersion, dispersion, days))


def blocks(rows, first=0, step=DAY):
    return [
        ProfileBlock(to_micros(START + (first + place) * step), int(count), timed=True)
        for place, count in enumerate(rows)
        if count
    ]


def judged(rows, reference=60, spec=None):
    return row_counts(
        blocks(rows[:reference]), blocks(rows[reference:], reference), DAY, spec or DriftPolicy(), looks=30
    )


@pytest.mark.parametrize(
    ("change", "what"), [(lambda n: n // 2, "few"), (lambda n: 2 * n, "many"), (lambda _: 0, "gap")]
)
@pytest.mark.parametrize("growth", [0.0, 0.005])
def test_one_day_of_other_volume_is_one_finding(change, what, growth):
    rows = counts(1, 90, growth=growth)
    assert judged(rows).findings == ()
    rows[70] = change(rows[70])
    [one] = judged(rows).findings
    assert (one.kind, one.what, one.windows, one.active, day(one.since)) == ("volume", what, 1, False, "2026-03-16")
    assert (one.now, one.since, one.alarmed) == (rows[70], one.until, () if what == "gap" else (10,))
    assert sentence(one).startswith(f"{rows[70]:,} rows; ")


@pytest.mark.parametrize(
    "how", [{"dispersion": 0.05}, {"dispersion": 0.5}, {"growth": 0.01, "dispersion": 0.02}, {"mean": 40}]
)
def test_months_without_change_are_quiet(how):
    """60 months each of which 5% may alarm; more than 8 have a chance of under 1%."""
    assert sum(bool(judged(counts(seed, 90, **how)).findings) for seed in range(60)) <= 8


def test_a_holiday_that_the_reference_has_may_come_again():
    rows = counts(2, 90)
    rows[30], rows[75] = rows[30] // 5, rows[75] // 4
    assert judged(rows).findings == ()


def test_closed_weekends_are_no_gaps_and_a_closed_monday_is():
    rows = counts(3, 90, week=np.array([1, 1, 1, 1, 1, 0, 0]))
    assert judged(rows).findings == ()
    rows[70] = 0
    assert [one.what for one in judged(rows).findings] == ["gap"]


def test_few_days_judge_nothing_and_say_so():
    rows = counts(4, 26)
    rows[20] = 0
    found = judged(rows, reference=14)
    assert (found.findings, found.judged) == ((), False)
    assert "25 windows of 1d are too few to say what is usual, and about 26 are needed" in found.note


def test_enough_days_that_do_not_follow_each_other_judge_nothing_and_say_why():
    rows = counts(4, 32)
    rows[10:16] = 0
    found = judged(rows, reference=14)
    assert (found.findings, found.judged) == ((), False)
    assert "of 26 windows of 1d too few can say what is usual: about 26 in a row" in found.note


def test_a_first_or_last_window_that_is_cut_off_is_none():
    rows = counts(5, 90)
    rows[-1] //= 4  # today, until now
    assert judged(rows).findings == ()
    rows[-2] //= 4  # yesterday
    assert [(one.what, one.active) for one in judged(rows).findings] == [("few", True)]
    rows = counts(5, 90)
    before, now = blocks(rows[:61]), blocks(rows[60:], 60)
    shared = (
        [*before[:-1], ProfileBlock(before[-1].start, 100, timed=True)],
        [ProfileBlock(now[0].start, 90, timed=True), *now[1:]],
    )
    assert row_counts(*shared, DAY, DriftPolicy(), looks=30).findings == ()


def test_a_reference_of_another_size_or_time_is_not_compared_with():
    rows = counts(6, 150)
    rows[60:] //= 10
    found = judged(rows)
    assert (found.findings, found.judged) == ((), True)
    assert "compared with each other" in found.note
    rows[120] //= 3
    for reference in (blocks(rows[:60]), blocks(rows[:60], -400), ()):  # the last two: its own weeks only
        [one] = row_counts(reference, blocks(rows[60:], 60), DAY, DriftPolicy(), looks=30).findings
        assert (one.what, day(one.since)) == ("few", "2026-05-05")


def test_a_lasting_loss_goes_on_until_the_newest_window():
    rows = counts(7, 90)
    rows[70:] //= 2
    [one] = judged(rows).findings
    assert one.active
    assert day(one.since) == "2026-03-16"
    assert one.windows >= 15


def test_what_matters_is_a_setting_and_hours_have_a_week_too():
    rows = counts(8, 90)
    rows[70] //= 2
    off = DriftPolicy(volume=1.0)
    assert judged(rows, spec=off).findings == ()
    rows[70] = 0
    assert [one.what for one in judged(rows, spec=off).findings] == ["gap"]
    hour = timedelta(hours=1)
    rows = np.random.default_rng(9).poisson(np.where(np.arange(1000) % 24 < 8, 0, 400))
    assert row_counts(blocks(rows[:700], 0, hour), blocks(rows[700:], 700, hour), hour, off, looks=720).findings == ()
    rows[852] = 0
    told = row_counts(blocks(rows[:700], 0, hour), blocks(rows[700:], 700, hour), hour, off, looks=720)
    assert [day(one.since) for one in told.findings] == ["2026-02-09 12:00"]


def test_a_clock_that_was_wrong_is_no_gap_of_decades():
    rows = blocks(counts(10, 60))
    old, late = ProfileBlock(0, 1, timed=True), ProfileBlock(to_micros(START + 4000 * DAY), 2, timed=True)
    found = row_counts((), [old, *rows, late], DAY, DriftPolicy(), looks=30)
    assert (found.findings, found.judged) == ((), True)
    assert row_counts((), [ProfileBlock(0, 100), ProfileBlock(100, 3)], DAY, DriftPolicy(), looks=2).note is None


def looked(rows, until=None):
    return row_counts((), blocks(rows), DAY, DriftPolicy(), looks=30, until=until and to_micros(START + until * DAY))


def test_days_without_rows_until_the_moment_of_the_look_are_a_gap():
    rows = counts(11, 60)
    assert looked(rows, 60.9).findings == ()  # the day of the look may still bring rows
    for days in (1, 12, 45):
        [one] = looked(rows, 60 + days).findings
        assert (one.what, one.windows, one.active, day(one.since)) == ("gap", min(days, 30), True, "2026-03-06")


def test_the_newest_day_is_judged_once_it_is_over():
    rows = counts(12, 60)
    rows[-1] //= 3
    assert looked(rows, 59.9).findings == looked(rows).findings == ()
    assert [(one.what, one.active) for one in looked(rows, 60).findings] == [("few", True)]


def test_after_a_long_break_the_newer_part_is_judged_and_the_break_is_said():
    rows = counts(13, 150)
    rows[60:92] = 0
    rows[59] *= 3
    assert looked(rows).findings == ()
    assert looked(rows).note == "no row is between 2026-03-05 and 2026-04-07: numbers of rows are evaluated after that"
    rows[140] //= 3
    assert [one.what for one in looked(rows).findings] == ["few"]
    for days in (1, 5):  # too few to judge: what lies before the break is over
        found = looked(rows[: 92 + days])
        assert not any(one.active for one in found.findings)
        assert found.note.startswith("no row is between 2026-03-05 and 2026-04-07")


def test_a_peak_that_recurs_alarms_twice_and_then_only_beyond_what_was_seen():
    rows = counts(14, 300, mean=1000)
    rows[29::30] *= 2
    rows[290] *= 5
    [one] = looked(rows).findings
    assert (one.what, one.alarmed, one.now) == ("many", (29, 59, 290), rows[290])
    rows[295] //= 2  # what recurs does not make forecasts unsure
    assert [one.alarmed for one in looked(rows).findings] == [(29, 59, 290), (295,)]


def test_a_loss_that_recurs_alarms_each_time():
    rows = counts(15, 200, mean=1000)
    rows[49::30] //= 3
    assert looked(rows).findings[0].alarmed == (49, 79, 109, 139, 169)


@pytest.mark.parametrize("change", [0.4, 1.8])
def test_a_change_that_lasts_four_weeks_becomes_the_usual_level(change):
    rows = counts(16, 160, mean=1000)
    rows[60:] = rows[60:] * change
    for days in (3, 27):
        [one] = looked(rows[: 60 + days], 60 + days).findings
        assert one.active
        assert one.windows >= days - 2
    [one] = looked(rows, 160).findings
    assert not one.active
    assert 26 <= one.windows <= 30
    rows[-1] //= 3
    assert [one.what for one in looked(rows, 160).findings if one.active] == ["few"]


@pytest.mark.parametrize("left", [0.1, 0.01])
def test_a_large_loss_is_active_while_it_lasts_and_its_end_is_no_finding(left):
    rows = counts(18, 200, mean=1000)
    rows[120:160] = rows[120:160] * left
    for days in (121, 140, 158):
        [one] = looked(rows[:days], days).findings
        assert (one.what, one.active) == ("few", True)
    for days in (162, 180, 200):
        [one] = looked(rows[:days], days).findings
        assert (one.what, one.windows, one.active) == ("few", 40, False)


@pytest.mark.parametrize("left", [0.3, 0.5])
def test_the_return_from_a_usual_lower_level_is_no_finding(left):
    rows = counts(19, 220, mean=1000)
    rows[120:160] = rows[120:160] * left
    for days in (158, 161, 166, 180, 220):
        [one] = looked(rows[:days], days).findings
        assert (one.what, one.active) == ("few", False)
    rows[210:] = rows[210:] * left  # the level before the loss is the usual one again
    assert [one.what for one in looked(rows, 220).findings if one.active] == ["few"]
    rows[210:] = rows[210:] * 2 / left
    assert [one.what for one in looked(rows, 220).findings if one.active] == ["many"]


def test_rows_that_are_more_again_than_few_that_are_not_judged_end_the_finding():
    rows = np.full(150, 26)
    rows[60:100] = 8
    assert [one.active for one in looked(rows[:110], 110).findings] == [False]


def test_no_rows_never_become_the_usual_level():
    rows = counts(17, 60, mean=1000)
    [one] = looked(rows, 90).findings
    assert (one.what, one.windows, one.active) == ("gap", 30, True)
