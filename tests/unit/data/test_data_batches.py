"""New rows are evaluated beside the source as a whole: by file, by added rows, together, and by period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DataError, UsageError
from cumulant.data.checks.verdict import SourceBreachError, warnings_of

START = datetime(2024, 1, 1, tzinfo=UTC)
RULES = {"km": {"min": 0}}


def rows(first: int, count: int, *, bad: int = 0, day: int = 0, **columns) -> pl.DataFrame:
    """`count` rows of one day with keys from `first` on; the last `bad` of them break `min`."""
    km = [5.0] * (count - bad) + [-1.0] * bad
    at = [START + timedelta(days=day, seconds=place) for place in range(count)]
    return pl.DataFrame({"id": range(first, first + count), "km": km, "at": at} | columns)


def sizes(snapshot) -> dict[str, list[int]]:
    return {kind: [size.rows for size in result] for kind, result in snapshot.batches.items()}


def source(**more):
    return {"path": "in", "key": "id", "rules": RULES} | more


def test_a_wholly_broken_file_is_refused_whatever_the_history(place):
    place.write("in/0.parquet", rows(0, 100_000))
    first = place.ingest(**source())
    place.write("in/1.parquet", rows(100_000, 900, bad=900))
    with pytest.raises(SourceBreachError) as caught:
        place.ingest(**source(), previous=first)
    text = str(caught.value)
    assert "in/1.parquet: 900 of 900 rows are refused (100.00%), more than the 0.01 that `quarantine` allows" in text
    assert "by km:min (900)" in text
    assert "cumulant data quarantine trips" in caught.value.hint
    assert "batch: {severity: warn}" in caught.value.hint
    [check] = caught.value.as_dict()["batch_checks"]
    assert (check["batch"], check["rule"], check["severity"]) == ("in/1.parquet", "quarantine", "fail")  # type: ignore[has-type]
    assert (check["failed"], check["rows"], check["limit"]) == (900, 900, 0.01)  # type: ignore[has-type]


def test_rows_added_to_a_file_are_a_batch_of_their_own(place):
    good = rows(0, 100_000)
    for name, write in (("trips.csv", lambda f: f.write_csv()), ("trips.parquet", lambda f: f)):
        place.write(name, write(good))
        first = place.ingest(**source(path=name))
        place.write(name, write(pl.concat([good, rows(100_000, 900, bad=900)])))
        result = place.refused(**source(path=name), previous=first)
        assert [check.batch for check in result.batch_checks] == [f"the rows added to {name}"]
        place.write(name, write(pl.concat([good, rows(100_000, 900, bad=2)])))
        assert place.ingest(**source(path=name), previous=first).batch_checks == ()


def test_a_file_whose_earlier_rows_changed_is_evaluated_as_a_whole(place):
    place.write("trips.parquet", rows(0, 1000))
    first = place.ingest(**source(path="trips.parquet"))
    changed = pl.concat([rows(0, 990), rows(990, 8, bad=8), rows(998, 10)])
    place.write("trips.parquet", changed)
    assert place.ingest(**source(path="trips.parquet"), previous=first).rows_quarantined == 8


def test_a_share_of_nulls_is_evaluated_on_the_new_rows(place):
    rules = {"km": {"nulls": "5%"}}
    place.write("in/0.parquet", rows(0, 50_000))
    first = place.ingest(**source(rules=rules))
    place.write("in/1.parquet", rows(50_000, 200).with_columns(km=pl.lit(None, pl.Float64)))
    result = place.refused(**source(rules=rules), previous=first)
    assert [(check.rule, check.failed, check.rows) for check in result.batch_checks] == [("km:nulls", 200, 200)]
    assert "in/1.parquet: 200 of 200 values of km are null" in result.breaches[0]
    place.write("in/1.parquet", rows(50_000, 200).drop("km"))
    result = place.refused(**source(rules=rules, on_schema_change="accept"), previous=first)
    assert [check.rule for check in result.batch_checks] == ["km:nulls"], "a column that is not there is null"


@pytest.mark.parametrize(("count", "bad", "refused"), [(1, 1, False), (3, 1, False), (2, 2, True), (200, 6, False)])
def test_a_small_batch_is_refused_only_beyond_chance(place, count, bad, refused):
    place.write("in/0.parquet", rows(0, 10_000))
    first = place.ingest(**source())
    place.write("in/1.parquet", rows(10_000, count, bad=bad))
    spec = source() | {"previous": first}
    assert (place.refused if refused else place.ingest)(**spec).rows_quarantined == bad


def test_many_small_files_are_evaluated_together_too(place):
    """Ten rows with two refused may be chance; two of ten in forty files are not."""
    place.write("in/0.parquet", rows(0, 100_000))
    first = place.ingest(**source())
    for number in range(40):
        place.write(f"in/1-{number:02}.parquet", rows(100_000 + 10 * number, 10, bad=2))
    result = place.refused(**source(), previous=first)
    assert [(check.batch, check.failed, check.rows) for check in result.batch_checks] == [
        ("the 40 new files together", 80, 400)
    ]


def test_sound_batches_at_the_limit_are_seldom_refused(place):
    """Whatever the number of files in a run: 300 runs of 20 files each, whose rows are refused at the declared 1%."""
    from cumulant.data.checks.batch_checks import check_shares
    from cumulant.data.checks.batches import Batch, BatchCounts
    from cumulant.data.policy import SourcePolicy
    from cumulant.data.spec import SourceSpec

    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        bad = random.binomial(500, 0.01, 20)
        result = [
            Batch(str(n), "file", BatchCounts(500 - n, type(BatchCounts().refused)({"km:min": int(n)}))) for n in bad
        ]
        refused += bool(check_shares(result, SourcePolicy(SourceSpec()), {}, {}))
    assert refused <= 3, "0.1% of runs are expected"


def test_a_broken_day_inside_a_new_file_is_found_by_its_period(place):
    whole = pl.concat([rows(1000 * day, 1000, bad=9 if day != 3 else 90, day=day) for day in range(20)])
    place.write("trips.parquet", whole)
    spec = source(path="trips.parquet", event_time="at", quarantine="2%")
    assert place.ingest(**spec).batch_checks == ()
    result = place.refused(**spec, batch={"period": "day"})
    assert [(check.batch, check.failed, check.rows) for check in result.batch_checks] == [("day 2024-01-04", 90, 1000)]
    for period, name in (("hour", "hour 2024-01-04T00"), ("week", None), ("month", None)):
        spec["batch"] = {"period": period}
        result = place.ingest(**spec) if name is None else place.refused(**spec)
        assert [check.batch for check in result.batch_checks] == ([] if name is None else [name])


def test_periods_are_days_of_the_declared_zone(place):
    late = [datetime(2024, 1, 1, 23, 30)] * 100
    place.write(
        "trips.parquet",
        pl.concat(
            [
                rows(0, 9900).with_columns(at=pl.lit(datetime(2024, 1, 3, 12))),
                rows(9900, 100, bad=50).with_columns(at=pl.Series(late)),
            ]
        ),
    )
    spec = source(path="trips.parquet", event_time={"column": "at", "zone": "Asia/Tokyo"}, batch={"period": "day"})
    assert [check.batch for check in place.refused(**spec).batch_checks] == ["day 2024-01-01"]


def test_a_period_that_was_evaluated_is_not_evaluated_again(place):
    """A day that was accepted with a warning does not stop what comes later."""
    good = pl.concat([rows(1000 * day, 1000, day=day) for day in range(20)])
    bad = rows(20_000, 100, bad=100, day=20)
    place.write("trips.parquet", good)
    spec = source(path="trips.parquet", event_time="at")
    first = place.ingest(**spec, batch={"period": "day"})
    place.write("trips.parquet", pl.concat([good, bad]))
    warned = place.ingest(**spec, batch={"period": "day", "severity": "warn"}, previous=first)
    assert {check.batch for check in warned.batch_checks} == {"the rows added to trips.parquet", "day 2024-01-21"}
    assert any("day 2024-01-21: 100 of 100 rows are refused (100.00%)" in text for text in warnings_of(warned))
    again = place.ingest(**spec, batch={"period": "day"}, previous=warned)
    assert again.id == warned.id
    assert again.batch_checks == warned.batch_checks, "the snapshot is the same, and so is what it warns of"
    place.write("trips.parquet", pl.concat([good, bad, rows(20_100, 1000, day=21)]))
    assert place.ingest(**spec, batch={"period": "day"}, previous=warned).batch_checks == ()
    rewritten = pl.concat([good.with_columns(pl.col("km") + 1), bad, rows(20_100, 1000, day=20)])
    place.write("trips.parquet", rewritten)
    result = place.ingest(**spec, batch={"period": "day", "severity": "warn"}, previous=warned)
    assert [check.batch for check in result.batch_checks] == ["day 2024-01-21"], "it has new rows"


def test_a_period_that_only_lost_rows_is_not_evaluated_again(place):
    """A file of the last thirty days, whose first day was accepted with a warning."""
    whole = pl.concat([rows(1000 * day, 200, bad=100 if day == 0 else 0, day=day) for day in range(31)])
    spec = source(path="trips.parquet", event_time="at", quarantine="2%")
    place.write("trips.parquet", whole[:6000])
    first = place.ingest(**spec, batch={"period": "day", "severity": "warn"})
    assert [check.batch for check in first.batch_checks] == ["day 2024-01-01"]
    place.write("trips.parquet", whole[50:])
    assert place.ingest(**spec, batch={"period": "day"}, previous=first).batch_checks == ()


def test_refused_times_count_in_the_period_that_they_can_be_read_as(place):
    lines = [f"{n},5,2024-01-{1 + n // 500:02}T00:00:00Z" for n in range(10_000)]
    lines += [f"{n},-1,2024-02-01T00:00:00Z" for n in range(10_000, 10_050)]
    place.write("trips.csv", "\n".join(["id,km,at", *lines, "99999,5,soon"]))
    result = place.refused(**source(path="trips.csv", event_time="at", batch={"period": "day"}))
    assert [(check.batch, check.failed, check.rows) for check in result.batch_checks] == [("day 2024-02-01", 50, 50)]


def test_a_period_needs_the_time_of_each_row(place):
    place.write("in/0.parquet", rows(0, 10))
    with pytest.raises(DataError, match="needs the time of each row"):
        place.ingest(**source(batch={"period": "day"}))


def test_the_batch_policy_names_no_other_snapshot(place):
    place.write("in/0.parquet", rows(0, 10))
    first = place.ingest(**source(event_time="at"))
    assert place.ingest(**source(event_time="at"), batch={"period": "day", "severity": "warn"}).id == first.id


def test_a_column_that_only_warns_does_not_count_towards_the_limit(place):
    lines = [f"{n},{'-1' if n < 40 else 5},{'x' if n == 99 else 'A'}" for n in range(100)]
    place.write("trips.csv", "\n".join(["id,km,city", *lines]))
    rules = {"km": {"min": 0, "severity": "warn"}, "city": {"in": ["A"]}}
    result = place.ingest(rules=rules)
    assert result.rows_quarantined == 41, "they go to quarantine all the same"
    assert result.breaches == ()
    [warning] = warnings_of(result)
    assert "41 of 100 rows are refused (41.00%), more than the 0.01" in warning
    assert {check.rule: check.severity for check in result.checks if check.failed} == {
        "km:min": "warn",
        "city:in": "fail",
    }
    assert "41 of 100" in place.refused(rules=rules, quarantine="0.5%").breaches[0], "the other column alone is over it"
    place.write("in/0.csv", "\n".join(["id,km,city", *(f"{n},5,A" for n in range(1000))]))
    first = place.ingest(path="in", rules=rules)
    place.write("in/1.csv", "\n".join(["id,km,city", *(f"{n},-1,A" for n in range(1000, 1050))]))
    result = place.ingest(path="in", rules=rules, previous=first)
    assert [(check.batch, check.severity) for check in result.batch_checks] == [("in/1.csv", "warn")]
    lines = [f"{n},{-1 if n % 10 < 6 else 5},{'x' if n % 10 > 6 else 'A'}" for n in range(1000, 1100)]
    place.write("in/1.csv", "\n".join(["id,km,city", *lines]))
    [check] = place.refused(path="in", rules=rules, previous=first).batch_checks
    assert "30 of 100 rows are refused" in check.text
    assert check.text.endswith("; by city:in (30)"), "rules that warn do not count"


@pytest.mark.parametrize(
    ("broken", "severity"),
    [
        ({"quarantine": "1%", "rules": {"km": {"min": 6}}}, {"quarantine": "warn"}),
        ({"rules": {"km": {"min": 6}}}, {"columns": "warn"}),
        ({"rules": {"km": {"min": 6, "severity": "fail"}}}, None),
        ({"rules": {"city": {"nulls": "1%"}}}, {"columns": "warn"}),
        ({"table": {"min_rows": 1000}}, {"min_rows": "warn"}),
        ({"table": {"max_rows": 10}}, {"max_rows": "warn"}),
        ({"table": {"fresh": "1d"}}, {"fresh": "warn"}),
        ({"table": {"where": ["km > 6"]}}, {"where": "warn"}),
    ],
)
def test_each_rule_of_the_source_fails_unless_it_is_declared_to_warn(place, broken, severity):
    place.write("trips.csv", "id,km,city,at\n" + "".join(f"{n},5,,2024-01-01T00:00:00Z\n" for n in range(100)))
    spec = {"event_time": "at"} | broken
    text = place.refused(**spec).breaches
    assert len(text) == 1
    if severity is None:
        assert place.refused(**spec, severity="warn").breaches == text, "a column's own word goes first"
        return
    for word in (severity, "warn"):
        result = place.ingest(**spec, severity=word)
        assert (result.breaches, result.warned) == ((), text)
        assert warnings_of(result) == text


def test_severity_names_no_other_snapshot(place):
    place.write("trips.csv", "id,km\n1,5\n")
    first = place.ingest(rules={"km": {"min": 0}})
    assert place.ingest(rules={"km": {"min": 0, "severity": "warn"}}, severity={"fresh": "warn"}).id == first.id


def test_the_rows_of_a_new_file_are_compared_with_those_of_earlier_files(place):
    spec = {"path": "in", "key": "id", "batch": {"min_rows": "50%", "max_rows": "200%"}}
    last, first = None, 0
    for number, count in enumerate([1000, 10, 1040, 960]):
        place.write(f"in/{number}.parquet", rows(first, count))
        last, first = place.ingest(**spec, previous=last), first + count
    assert sizes(last) == {"file": [1000, 10, 1040, 960]}, "two batches say nothing of a third"
    for count, rule in ((400, "min_rows"), (0, "min_rows"), (480, None), (900, None), (2500, "max_rows")):
        place.write("in/9.parquet", rows(first, count))
        if rule is None:
            assert place.ingest(**spec, previous=last).batches["file"][-1].rows == count
            continue
        result = place.refused(**spec, previous=last)
        assert [check.rule for check in result.batch_checks] == [f"batch:{rule}"]
        assert f"{count:,} rows, " in result.breaches[0]
        assert "of 980, the median of the 4 batches before it" in result.breaches[0]
    warned = place.ingest(**(spec | {"batch": spec["batch"] | {"severity": "warn"}}), previous=last)
    assert warnings_of(warned) == result.breaches
    assert place.ingest(**spec, previous=warned).batches == warned.batches, "nothing new, nothing counted"


def test_small_batches_differ_by_chance(place):
    spec = {"path": "in", "key": "id", "batch": {"min_rows": "50%", "max_rows": "200%"}}
    last = None
    for number, count in enumerate([3, 4, 3, 5, 1, 8]):
        place.write(f"in/{number}.parquet", rows(100 * number, count))
        last = place.ingest(**spec, previous=last)
    assert last.batch_checks == ()


def test_rows_added_are_compared_with_rows_added_and_not_with_the_first_load(place):
    spec = {"path": "trips.parquet", "key": "id", "batch": {"min_rows": "50%"}}
    total, last = 5000, None
    for count in (0, 200, 210, 190):
        total += count
        place.write("trips.parquet", rows(0, total))
        last = place.ingest(**spec, previous=last)
    assert sizes(last) == {"file": [5000], "added": [200, 210, 190]}
    place.write("trips.parquet", rows(0, total + 20))
    assert "20 rows, fewer than 50% of 200" in place.refused(**spec, previous=last).breaches[0]


def test_the_rows_of_a_batch_may_be_limited_by_a_number(place):
    place.write("in/0.parquet", rows(0, 100))
    first = place.ingest(**source(batch={"min_rows": 50}))
    place.write("in/1.parquet", rows(100, 49))
    result = place.refused(**source(batch={"min_rows": 50}), previous=first)
    assert result.breaches == ("in/1.parquet: 49 rows, fewer than the 50 that `batch` allows",)
    with pytest.raises(UsageError, match="no limit on the rows of a batch"):
        place.ingest(**source(batch={"min_rows": "half"}), previous=first)


def test_bad_rows_that_come_in_bursts_weaken_the_test_and_no_broken_batch_passes(place):
    """Once in four files ten rows are refused together: in no file is that chance of independent rows."""
    place.write("in/00.parquet", rows(0, 20_000))
    last, first = place.ingest(**source()), 20_000
    for number in range(1, 9):
        place.write(f"in/{number:02}.parquet", rows(first, 500, bad=20 if number % 4 == 0 else 0))
        spec = source(batch={"severity": "warn"}) | {"previous": last}
        last, first = place.ingest(**spec), first + 500
    place.write("in/09.parquet", rows(first, 500, bad=20))
    assert place.ingest(**source(), previous=last).batch_checks == ()
    place.write("in/09.parquet", rows(first, 500, bad=500))
    assert place.refused(**source(), previous=last).batch_checks[0].failed == 500
    warned = place.ingest(**source(batch={"severity": "warn"}, quarantine="5%"), previous=last)
    place.write("in/10.parquet", rows(first + 500, 500, bad=500))
    assert place.refused(**source(quarantine="5%"), previous=warned).batch_checks[0].batch == "in/10.parquet"


def test_in_a_first_snapshot_files_are_compared_with_each_other(place):
    """Each third file has bursts beyond the limit. One that is wholly refused is found all the same."""
    for number in range(12):
        place.write(f"in/{number:02}.parquet", rows(500 * number, 500, bad=20 if number % 3 == 0 else 0))
    assert place.ingest(**source(quarantine="2%")).batch_checks == ()
    place.write("in/12.parquet", rows(6_000, 100, bad=100))
    assert [check.batch for check in place.refused(**source(quarantine="2%")).batch_checks] == ["in/12.parquet"]


def test_a_file_whose_types_changed_is_read_as_a_whole(place):
    place.write("trips.parquet", rows(0, 100, code=["a7"] * 100))
    first = place.ingest(**source(path="trips.parquet", on_schema_change="accept"))
    place.write("trips.parquet", rows(0, 200, code=[7] * 200))
    result = place.ingest(**source(path="trips.parquet", on_schema_change="accept"), previous=first)
    assert [len(sizes) for sizes in result.batches.values()] == [2]


def test_new_rows_that_are_old_are_warned_of_though_one_row_lies_in_the_future(place):
    spec = source(event_time="at", table={"fresh": "2d"})
    future = rows(999, 1).with_columns(at=pl.lit(datetime(2999, 1, 1, tzinfo=UTC)))
    place.write("in/0.parquet", pl.concat([rows(0, 100, day=8), future]))
    first = place.ingest(**spec)
    assert first.batch_checks == ()
    place.write("in/1.parquet", rows(1000, 100, day=8))
    assert place.ingest(**spec, previous=first).batch_checks == ()
    place.write("in/1.parquet", rows(1000, 100, day=5))
    result = place.ingest(**spec, previous=first)
    [warning] = warnings_of(result)
    assert warning.startswith("in/1.parquet: the newest at of the new rows is 3d")


def test_of_many_broken_batches_the_first_are_named_and_the_others_counted(place):
    place.write("in/0.parquet", rows(0, 10_000))
    for number in range(15):
        place.write(f"in/1-{number:02}.parquet", rows(10_000 + 10 * number, 5, bad=5))
    with pytest.raises(SourceBreachError) as caught:
        place.ingest(**source())
    assert len(caught.value.snapshot.breaches) == 15
    assert str(caught.value).count(" of 5 rows are refused") == 10
    assert "; and 5 more" in str(caught.value)
    warned = place.ingest(**source(batch={"severity": "warn"}))
    assert len(warned.batch_checks) == 15
    assert warnings_of(warned)[-1] == "and 5 more"


def test_new_rows_that_all_lie_in_the_future_are_warned_of(place):
    spec = source(event_time="at", table={"fresh": "30d"})
    place.write("in/0.parquet", rows(0, 100, day=8))
    first = place.ingest(**spec)
    place.write("in/1.parquet", rows(1000, 100, day=8000))
    [warning] = warnings_of(place.ingest(**spec, previous=first))
    assert warning == "in/1.parquet: each at of the new rows is after now, so that their age is not known"


def test_each_empty_file_is_new_though_all_hold_the_same(place):
    spec = {"path": "in", "missing_files": "100%", "batch": {"min_rows": 50, "severity": "warn"}}
    for number in range(3):
        place.write(f"in/{number}.csv", "id,km\n" + "".join(f"{1000 * number + place},5\n" for place in range(100)))
    last = place.ingest(**spec)
    for name in ("3", "4", "1"):
        place.write(f"in/{name}.csv", "id,km\n")
        last = place.ingest(**spec, previous=last)
        assert [check.text for check in last.batch_checks] == [
            f"in/{name}.csv: 0 rows, fewer than the 50 that `batch` allows"
        ]
    assert place.ingest(**spec, previous=last).batches == last.batches, "it is new once"


@pytest.mark.parametrize("key", ["id", None])
def test_a_file_that_is_a_copy_of_another_is_named(place, key):
    spec = {"path": "in", "key": key} if key else {"path": "in"}
    place.write("in/0.parquet", rows(0, 10_000))
    place.write("in/1.parquet", rows(10_000, 50))
    first = place.ingest(**spec)
    assert warnings_of(first) == ()
    place.write("in/2.parquet", rows(10_000, 50))
    place.write("in/3.parquet", rows(20_000, 50))
    [warning] = warnings_of(place.ingest(**spec, previous=first))
    assert warning.startswith("1 file is a copy of another: in/2.parquet (of in/1.parquet)")
    (place.root / "in/1.parquet").unlink()
    assert not any("copy" in text for text in warnings_of(place.ingest(**spec, previous=first))), "it was moved"


def test_one_word_of_severity_is_for_the_rows_of_a_batch_too(place):
    place.write("in/0.parquet", rows(0, 49))
    for severity in ("warn", {"min_rows": "warn"}):
        [warning] = warnings_of(place.ingest(**source(batch={"min_rows": 50}, severity=severity)))
        assert warning == "in/0.parquet: 49 rows, fewer than the 50 that `batch` allows"
    assert place.refused(**source(batch={"min_rows": 50}, severity={"max_rows": "warn"})).breaches == (warning,)


def test_the_age_of_personal_times_is_known(place):
    spec = source(event_time="at", personal=["at"])
    place.write("in/0.parquet", rows(0, 100, day=8))
    assert place.ingest(**spec, table={"fresh": "3d"}).breaches == ()
    assert "the newest at up to now is at most 12h old" in place.refused(**spec, table={"fresh": "12h"}).breaches[0]
