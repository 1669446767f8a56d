"""What is alarming: right on real and known cases, quiet where nothing changes, and of the right kind."""

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from scipy.stats import beta, binom, norm

from cumulant.monitoring.drift.blocks import by_rows, by_time
from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.findings import Findings
from cumulant.monitoring.drift.joint import jointly
from cumulant.monitoring.drift.profiles import DriftProfile, ProfileBlock
from cumulant.monitoring.drift.profiling import profile
from cumulant.monitoring.policy import DriftPolicy

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "drift" / "nannyml"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the checkout")


def tenths(before, now, roles):
    reference = profile(before, roles, cut=by_rows(before.height, 5000, before["timestamp"]))
    current = profile(now, roles, cut=by_rows(now.height, 5000, now["timestamp"]), like=reference)
    return compare(reference, current, looks=len(current.blocks))


def loans(name):
    before, now = (
        pl.read_parquet(DATA / f"synthetic_car_loan_{name}{part}.parquet") for part in ("reference", "analysis")
    )
    answers = {"y_pred", "y_pred_proba"}
    roles = {c: "prediction" if c in answers else "feature" for c in now.columns if c not in ("id", "timestamp")}
    return tenths(before, now, roles)


@real
def test_car_loans_alarm_in_the_sixth_tenth_and_not_before():
    found = loans("")
    assert found.alarming == (False,) * 5 + (True,) * 5
    told = {one.feature: one for one in found.findings}
    assert {one.kind for one in found.findings} == {"covariate", "prior"}
    assert {name for name, one in told.items() if one.kind == "covariate"} == {
        "car_value",
        "salary_range",
        "loan_length",
        "repaid_loan_on_prev_car",
    }
    assert told["y_pred_proba"].kind == "prior"
    value = told["car_value"]
    assert value.since == found.windows[5]
    assert value.low < value.effect < value.high
    assert (value.windows, value.active, value.span) == (5, True, 1)
    assert value.parts[0].now > 2 * value.parts[0].before
    assert found.findings[0].rank >= found.findings[-1].rank


@real
def test_the_twin_with_worse_data_is_a_fault_in_salary_range():
    found = loans("dq_")
    faults = {one.feature: one for one in found.findings if one.kind == "data_fault"}
    salary = faults["salary_range"]
    assert (salary.what, round(salary.before, 2), round(salary.now, 2)) == ("missing", 0.10, 0.22)
    assert salary.since == found.windows[5]
    assert faults["size_of_downpayment"].examples == ("50%",)
    assert not any(found.alarming[:5])


@real
def test_employment_a_year_later_is_no_alarm():
    before, now = (pl.read_parquet(DATA / f"employment_MA_{part}.parquet") for part in ("reference", "2016"))
    roles = {
        name: "feature" for name in now.columns if name not in ("id", "year", "prediction", "predicted_probability")
    }
    reference = profile(before, roles)
    assert len(reference.columns) == 16
    found = compare(reference, profile(now, roles, like=reference))
    assert found.findings == ()
    assert not any(one.alarming for one in found.columns)
    assert found.assumed_independent


def normal(generator, days, size, columns=6):
    found = {f"n{place}": generator.normal(size=days * size) for place in range(columns)}
    found["c"] = generator.choice(["a", "b", "c", "d"], days * size, p=[0.5, 0.3, 0.15, 0.05])
    return pl.DataFrame(found)


def test_a_month_without_change_is_quiet():
    """Looked at daily: at most 5% of months with any alarm, by the 99.9% lower bound."""
    generator, runs, alarms = np.random.default_rng(1000), 30, 0
    for _ in range(runs):
        before, now = normal(generator, 1, 1000), normal(generator, 30, 1000)
        reference = profile(before, dict.fromkeys(before.columns, "feature"))
        current = profile(now, {}, cut=by_rows(now.height, 1000), like=reference)
        alarms += any(compare(reference, current).alarming)
    assert alarms == 0 or beta.ppf(0.001, alarms, runs - alarms + 1) <= 0.05


def quiet(generator, reference, days, size):
    """A profile of `days` like those that `normal` draws, from counts: those of independent rows are multinomial."""
    columns = []
    for one in reference.columns:
        if one.cells.kind == "number":
            shares = np.diff(norm.cdf(one.cells.edges), prepend=0.0, append=1.0)
        else:
            known = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
            shares = np.array([*(known[value] for value in one.cells.values), 0.0, 0.0])
        counts, none = generator.multinomial(size, shares, days), (0,) * days
        columns.append(
            msgspec.structs.replace(one, counts=tuple(map(tuple, counts.tolist())), missing=none, unreadable=none)
        )
    return DriftProfile(blocks=tuple(ProfileBlock(day * size, size) for day in range(days)), columns=tuple(columns))


def surer(reference):
    """The same shares, as if of a thousand times the rows."""
    columns = tuple(
        msgspec.structs.replace(one, counts=tuple(tuple(1000 * n for n in row) for row in one.counts))
        for one in reference.columns
    )
    return msgspec.structs.replace(reference, columns=columns)


def test_months_in_which_any_effect_matters_are_as_quiet_as_promised():
    """10,000 rows a day and no least effect, so that evidence alone decides: at most 5%, by the 99.9% lower bound.

    Of 60 months 9 may alarm: more have a chance of 0.1% at 5%. If the reference were taken for the truth, most would,
    as the first dozen shows.
    """
    generator, runs, alarms, blind = np.random.default_rng(12), 60, 0, 0
    spec = DriftPolicy(effect=1e-6, missing=0.0001, faults=0.0001)
    for run in range(runs):
        before = normal(generator, 1, 10_000, columns=3)
        reference = profile(before, dict.fromkeys(before.columns, "feature"))
        current = quiet(generator, reference, 30, 10_000)
        alarms += any(compare(reference, current, spec).alarming)
        blind += run < 12 and any(compare(surer(reference), current, spec).alarming)
    assert alarms <= binom.ppf(0.999, runs, 0.05) == 9
    assert blind > 6


def case(change, *, size=500, days=10, from_day=6, spec=None, roles=None, **options):
    """A reference of 20 days, and `days` of which the last are changed."""
    generator = np.random.default_rng(11)
    first = datetime(2026, 1, 1)

    def stamped(table, start):
        at = [first + timedelta(days=start + place // size) for place in range(table.height)]
        return table.with_columns(at=pl.Series(at))

    before, now = stamped(normal(generator, 20, size), 0), stamped(normal(generator, days, size), 20)
    late = pl.col("at") >= first + timedelta(days=20 + from_day)
    changed = change(now, late)
    roles = roles or dict.fromkeys(["n0", "n1", "n2", "n3", "n4", "n5", "c"], "feature")
    reference = profile(before, roles, cut=by_time(before["at"], timedelta(days=1)))
    current = profile(changed, roles, cut=by_time(changed["at"], timedelta(days=1)), like=reference)
    return compare(reference, current, spec, **options)


CASES = {
    "missing": lambda t, late: t.with_columns(n0=pl.when(late).then(None).otherwise("n0")),
    "unseen": lambda t, late: t.with_columns(c=pl.when(late & (pl.col("c") == "b")).then(pl.lit("B")).otherwise("c")),
    "impossible": lambda t, late: t.with_columns(n0=pl.when(late).then(pl.col("n0") * 1000).otherwise("n0")),
    "constant": lambda t, late: t.with_columns(n0=pl.when(late).then(0.25).otherwise("n0")),
    "unreadable": lambda t, late: t.with_columns(
        n0=pl.when(late).then(pl.lit("n/a")).otherwise(pl.col("n0").cast(pl.String))
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_faults_of_the_data_are_told_as_such(what):
    found = case(CASES[what])
    one = next(one for one in found.findings if one.what == what)
    assert (one.kind, one.feature, one.since) == ("data_fault", "c" if what == "unseen" else "n0", found.windows[6])
    assert found.alarming[:6] == (False,) * 6
    assert found.alarming[6]
    if what == "unseen":
        assert one.examples == ("B",)


def shifted(t, late):
    return t.with_columns(n0=pl.when(late).then(pl.col("n0") + 0.8).otherwise("n0"))


def test_shifts_are_covariate_or_prior_by_what_moved():
    assert [(one.feature, one.kind, one.what) for one in case(shifted).findings] == [("n0", "covariate", "shift")]
    told = case(shifted, roles={"n0": "label", "n1": "feature"}).findings
    assert [one.kind for one in told] == ["prior"]
    assert told[0].parts[0].values.startswith("above")
    assert told[0].distances.wasserstein == pytest.approx(0.8, abs=0.1)


def test_small_changes_alarm_nobody_however_many_rows_show_them():
    found = case(lambda t, late: t.with_columns(n0=pl.when(late).then(pl.col("n0") + 0.15).otherwise("n0")), size=5000)
    assert found.findings == ()
    strict = case(
        lambda t, late: t.with_columns(n0=pl.when(late).then(pl.col("n0") + 0.15).otherwise("n0")),
        size=5000,
        spec=DriftPolicy(effect=0.02),
    )
    assert [one.feature for one in strict.findings] == ["n0"]


def test_what_the_model_does_not_use_never_alarms_and_what_it_uses_more_comes_first():
    both = lambda t, late: shifted(t, late).with_columns(n1=pl.when(late).then(pl.col("n1") + 0.7).otherwise("n1"))  # noqa: E731
    assert [one.feature for one in case(both).findings] == ["n0", "n1"]
    assert [one.feature for one in case(both, weights={"n1": 3.0}).findings] == ["n1", "n0"]
    assert [one.feature for one in case(both, spec=DriftPolicy(weights={"n0": 0.0})).findings] == ["n1"]


def test_a_small_window_is_seen_together_with_those_before_it():
    """25 rows a day show nothing in a day, and enough in a week."""
    alone = case(shifted, size=25, days=20, from_day=8, spec=DriftPolicy(spans=(1,)))
    week = case(shifted, size=25, days=20, from_day=8)
    assert alone.findings == ()
    assert [(one.feature, one.span) for one in week.findings] == [("n0", 7)]
    assert week.findings[0].since.start >= week.windows[8].start


def test_a_column_that_is_gone_and_windows_without_rows():
    gone = case(lambda t, late: t.drop("n2"))
    assert [(one.feature, one.what, one.kind) for one in gone.findings] == [("n2", "absent", "data_fault")]
    few = case(lambda t, late: t.head(5))
    assert few.findings == ()
    assert [block.rows for block in few.windows] == [5]
    assert msgspec.json.decode(msgspec.json.encode(gone), type=Findings) == gone


def test_a_clock_that_jumped_hides_nothing():
    """One row of a far day is no window: what alarms in the newest whole one is still active."""

    def jumped(t, late):
        ahead = pl.when(pl.int_range(pl.len()) == 4999).then(datetime(2099, 1, 1)).otherwise("at")
        return shifted(t, late).with_columns(at=ahead.cast(pl.Datetime("us")))

    found = case(jumped)
    assert (len(found.windows), found.newest, found.windows[-1].rows) == (11, 9, 1)
    assert [(one.feature, one.active) for one in found.findings] == [("n0", True)]


def test_an_event_that_comes_back_is_over():
    found = case(
        lambda t, late: shifted(t, late & (pl.col("at") < datetime(2026, 1, 28))), days=12, spec=DriftPolicy(spans=(1,))
    )
    assert found.alarming == (False,) * 6 + (True,) + (False,) * 5
    assert found.active == ()
    assert found.findings[0].until == found.windows[6]


def together(generator, correlation, days=10, size=150):
    """Two normal columns, a third beside them, and the day of each row."""
    n = days * size
    first = generator.normal(size=n)
    second = correlation * first + np.sqrt(1 - correlation**2) * generator.normal(size=n)
    kind = generator.choice(["x", "y"], n)
    return pl.DataFrame({"first": first, "second": second, "kind": kind}), np.arange(n) // size


def test_what_columns_do_together_is_seen_by_a_classifier_only():
    generator = np.random.default_rng(4)
    (before, days), (same, _), (turned, _) = (together(generator, by) for by in (0.8, 0.8, -0.8))
    roles = dict.fromkeys(before.columns, "feature")
    reference = profile(before, roles)
    assert compare(reference, profile(turned, roles, like=reference)).findings == ()
    found = jointly(before, turned, reference, blocks=(days, days))
    assert found.low > 0.8
    assert {one.feature for one in found.by[:2]} == {"first", "second"}
    still = jointly(before, same, reference, blocks=(days, days))
    assert still.low <= 0.5 <= still.high
    assert jointly(before.head(50), same, reference) is None


def test_a_weight_alarms_about_nothing_that_does_not_matter():
    generator = np.random.default_rng(0)
    names = [f"f{place}" for place in range(40)]
    before = pl.DataFrame({name: generator.normal(size=400) for name in [*names, "calm"]})
    now = pl.DataFrame({name: generator.normal(3, 1, 400) for name in names} | {"calm": before["calm"]})
    roles = dict.fromkeys(before.columns, "feature")
    reference = profile(before, roles)
    current = profile(now, roles, like=reference)
    found = compare(reference, current, DriftPolicy(weights={"calm": 1000.0}, false_alarms=0.2))
    assert {one.feature for one in found.findings} == set(names)
