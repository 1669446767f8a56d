"""Equal occurrences are reported at once and then once a window, and none is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.occurrences import OccurrenceCounter, Occurrences

START = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = timedelta(minutes=1)


def at(seconds):
    return START + timedelta(seconds=seconds)


def counter(most=3):
    return OccurrenceCounter[str](WINDOW, most, lambda _: "others")


def test_the_first_is_reported_at_once_and_others_with_their_number_after_the_window():
    counts = counter()
    assert counts.add("a", at(0)) == ("a", Occurrences(1, at(0), at(0)))
    assert [counts.add("a", at(second)) for second in range(1, 60)] == [None] * 59
    assert counts.due(at(59)) == []
    assert counts.due(at(60)) == [("a", Occurrences(59, at(1), at(59)))]
    assert counts.due(at(119)) == []
    assert counts.due(at(120)) == []
    assert counts.add("a", at(121)) == ("a", Occurrences(1, at(121), at(121))), "a new window begins"


def test_one_after_the_window_is_reported_with_those_that_wait():
    counts = counter()
    counts.add("a", at(0))
    counts.add("a", at(5))
    assert counts.add("a", at(90)) == ("a", Occurrences(2, at(5), at(90)))


def test_what_could_not_be_reported_is_due_again():
    counts = counter()
    report = counts.add("a", at(0))
    assert report is not None
    counts.put_back(*report)
    counts.add("b", at(0))
    assert counts.due(at(1)) == [("a", Occurrences(1, at(0), at(0)))]
    counts.put_back("z", Occurrences(4, at(0), at(1)))
    assert dict(counts.due(at(2)))["z"].count == 4


def test_a_clock_that_was_set_back_holds_nothing_up():
    counts = counter()
    counts.add("a", at(0))
    counts.add("a", at(1))
    assert counts.due(at(-3600)) == [("a", Occurrences(1, at(1), at(1)))]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 90), st.sampled_from(["add", "due", "fail", "every"])),
        max_size=60,
    )
)
def test_every_occurrence_is_reported_once_and_keys_are_bounded(steps):
    counts, added, reported, now = counter(), 0, [], 0
    for key, seconds, kind in steps:
        now += seconds
        if kind == "add":
            added += 1
            report = counts.add(key, at(now))
            reported += [] if report is None else [report]
        elif kind == "fail":
            for report in counts.due(at(now)):
                counts.put_back(*report)
        else:
            reported += counts.due(at(now), every=kind == "every")
        assert len(counts) <= 3 + 1
        waiting = sum(known.pending.count for known in counts._known.values() if known.pending)
        assert sum(report.count for _, report in reported) + waiting == added
    reported += counts.due(at(now), every=True)
    assert sum(report.count for _, report in reported) == added
    assert all(report.first <= report.last for _, report in reported)
