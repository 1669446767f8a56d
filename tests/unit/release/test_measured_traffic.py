"""The traffic that `release plan` reads off the prediction log: breaks are no traffic, and quiet hours are no breaks."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from releases import policy_with
from rich.console import Console

from cumulant.cli.release.release_plan import show
from cumulant.core.units import to_micros
from cumulant.flows.release.plan.measured_traffic import estimate_traffic, measure_traffic, parse_rate
from cumulant.flows.release.plan.release_plan import ReleasePlan, build_plan
from cumulant.release.spec import CanarySpec, StagesSpec
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.log import folder_log

DAY = 86_400.0


def arrivals(rate: float, start: float, seconds: float, seed: int = 0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return start + np.sort(dice.uniform(0, seconds, dice.poisson(rate * seconds)))


NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def logged(folder: Path, times: np.ndarray, *, rows: int = 1, model: str = "late", shadow: bool = False) -> None:
    """Requests at moments in seconds from `NOW` on, in a file of their own."""
    parts = LogParts(folder, PersonalValueMask(b"k", {model: []}), file_size=1 << 26, failed=lambda error, rows: None)
    for number, at in enumerate(times):
        entry = LogEntry(
            id=f"r{number}",
            time_us=to_micros(NOW) + round(at * 1e6),
            latency_us=1,
            model=model,
            version="1",
            sequence=number,
            event_times=[None] * rows,
            ages=[None] * rows,
            shadow=shadow,
            rows=msgspec.json.encode([{"x": 1}] * rows),
            answers=msgspec.json.encode([{"prediction": 1}] * rows),
        )
        parts.add(entry, f"w.{shadow}.{model}.{rows}", "")
    parts.close()


def test_requests_are_counted_once_each_in_order_and_without_mirrored_ones(tmp_path: Path) -> None:
    log, times = tmp_path / "log", arrivals(0.05, -2 * DAY, 2 * DAY)
    logged(log, times[::2])
    logged(log, times[1::2], rows=3)
    logged(log, times, model="other")
    logged(log, times, shadow=True)
    logged(log, np.array([-8 * DAY, -7 * DAY - 1]))
    found, exact = measure_traffic(folder_log(log), "late", NOW), estimate_traffic(times, 0.0)
    assert found is not None
    for name in found.__struct_fields__:
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-4, abs=1), name
    assert found.mean_rate == pytest.approx(exact.mean_rate, rel=1e-4)
    assert measure_traffic(folder_log(log), "none", NOW) is None


def test_requests_of_a_clock_that_was_ahead_are_no_traffic(tmp_path: Path) -> None:
    """A day of 1,000 requests, all dated later than now, were 17 a second."""
    log = tmp_path / "log"
    logged(log, arrivals(1000 / DAY, 10, DAY))
    assert measure_traffic(folder_log(log), "late", NOW) is None
    logged(log, np.array([-5.0, -5.0]))
    found = measure_traffic(folder_log(log), "late", NOW)
    assert found is not None
    assert found.rate == 2 / 60


def test_a_day_without_requests_since_the_last_one_does_not_dilute_the_rate() -> None:
    # Three minutes at 200 requests a second, and a day later a plan: as the mean over the day this was .4 a second.
    found = estimate_traffic(arrivals(200, 0, 180), DAY)
    assert found.rate == pytest.approx(200, rel=0.05)
    assert found.longest == pytest.approx(180, rel=0.05)
    assert found.rate_within(120) == found.rate
    assert found.warning(120, DAY) is None
    assert "came for 3m at most" in str(found.warning(600, DAY))
    assert found.warning(None, DAY) == found.warning(600, DAY)


def test_a_stage_longer_than_requests_came_is_planned_with_the_time_without_them() -> None:
    found = estimate_traffic(arrivals(200, 0, 180), 2 * DAY)
    assert found.rate_within(600) == pytest.approx(36_000 / (2 * DAY), rel=0.05)
    assert "no request came in the last 2d" in str(found.warning(600, DAY))
    assert "--requests 2" in str(found.warning(600, DAY))


def test_a_minute_of_requests_says_nothing_of_a_day() -> None:
    found = estimate_traffic(arrivals(60, 0, 60), 60)
    assert found.requests_a_day is None
    assert "the prediction log covers 1m only" in str(found.warning(600, DAY))
    assert found.warning(50, DAY) is None
    plan = build_plan(policy_with(), rate=found, errors=0.005)
    assert (plan.requests_a_day, plan.observed_seconds) == (None, 60)
    assert plan.requests_needed == pytest.approx(sum(one.seconds for one in plan.stages) * found.rate, rel=0.3)
    assert not any("a day" in text for text in plan.advice)


def test_hours_of_a_first_day_are_no_day_and_a_whole_day_is() -> None:
    hours = estimate_traffic(arrivals(0.1, 0, 20 * 3600), 20 * 3600)
    assert hours.requests_a_day is None
    day = estimate_traffic(arrivals(0.1, 0, DAY), DAY)
    assert day.requests_a_day == pytest.approx(8640, rel=0.05)


def test_an_hour_each_night_is_a_day_of_requests_whenever_it_is_looked_at() -> None:
    nights = np.concatenate([arrivals(1, night * DAY, 3600, night) for night in range(4)])
    for hours in (1, 7, 13, 23):
        known = nights[nights < 2 * DAY + hours * 3600]
        assert estimate_traffic(known, 2 * DAY + hours * 3600).requests_a_day == pytest.approx(3600, rel=0.1)


def test_a_quiet_weekend_counts() -> None:
    """From Monday to Monday: 5 days of 5,000 requests and 2 of 500; the newer half is Friday to Sunday."""
    week = np.concatenate([arrivals((0.05, 0.005)[day >= 5], day * DAY, DAY, day) for day in range(7)])
    monday, saturday = estimate_traffic(week, 7 * DAY), estimate_traffic(week[week < 5 * DAY], 5 * DAY)
    assert monday.requests_a_day == pytest.approx((0.05 + 2 * 0.005) * DAY / 3, rel=0.05)
    assert saturday.requests_a_day == pytest.approx(0.05 * DAY, rel=0.05)
    assert monday.rate_within(600) == monday.mean_rate


def test_traffic_that_falls_is_planned_with_its_newer_half() -> None:
    falling = np.concatenate([arrivals(0.2 * 2.0**-day, day * DAY, DAY, day) for day in range(6)])
    newest = sum(0.2 * 2.0**-day for day in (3, 4, 5)) / 3
    assert estimate_traffic(falling, 6 * DAY).mean_rate == pytest.approx(newest, rel=0.1)
    growing = np.concatenate([arrivals(0.01 * 2.0**day, day * DAY, DAY, day) for day in range(6)])
    assert estimate_traffic(growing, 6 * DAY).mean_rate == pytest.approx(0.01 * 63 / 6, rel=0.1)


def test_bursts_a_day_apart_are_measured_each_by_itself() -> None:
    times = np.concatenate([arrivals(50, day * DAY, 300, day) for day in range(4)])
    assert estimate_traffic(times, 3 * DAY + 300).rate == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("rate", [2 / 3600, 10 / DAY, 0.01, 5.0])
def test_traffic_without_breaks_has_its_mean_rate(rate: float) -> None:
    seconds = min(7 * DAY, 20_000 / rate)
    found = estimate_traffic(arrivals(rate, 0, seconds), seconds)
    assert found.rate == pytest.approx(rate, rel=0.3)
    assert found.share > 0.9


def test_quiet_nights_are_traffic_and_closed_ones_are_breaks() -> None:
    quiet = np.sort(
        np.concatenate(
            [
                arrivals(1, d * DAY + h * 3600, 3600, 24 * d + h)
                if 8 <= h < 20
                else arrivals(0.02, d * DAY + h * 3600, 3600, 24 * d + h)
                for d in range(5)
                for h in range(24)
            ]
        )
    )
    assert estimate_traffic(quiet, 5 * DAY).rate == pytest.approx(len(quiet) / (5 * DAY), rel=0.02)
    closed = np.concatenate([arrivals(1, day * DAY, 8 * 3600, day) for day in range(5)])
    found = estimate_traffic(closed, 4 * DAY + 8 * 3600)
    assert found.rate == pytest.approx(1, rel=0.05)
    assert found.longest == pytest.approx(8 * 3600, rel=0.01)
    assert "came for 8h at most" in str(found.warning(20 * 3600, DAY))
    # A stage of a day runs through the night: it sees a third of the requests.
    assert found.rate_within(3600) == found.rate
    assert found.rate_within(DAY) == pytest.approx(1 / 3, rel=0.05)


def test_a_length_of_time_is_shown_in_two_units() -> None:
    times = np.concatenate([arrivals(1, day * 2 * DAY, DAY + 7265.0, day) for day in range(3)])
    assert "came for 1d2h at most" in str(estimate_traffic(times, 6 * DAY).warning(3 * DAY, 3 * DAY))


def test_a_plan_counts_the_breaks_of_a_stage_that_is_longer_than_requests_come() -> None:
    daily = estimate_traffic(np.concatenate([arrivals(0.3, day * DAY, 3600, day) for day in range(7)]), 6 * DAY + 3600)
    canary = CanarySpec(weights=["50%"], at_least="10m", soak="10m", at_most="1d", samples=500)
    spec = policy_with(stages=StagesSpec(shadow=None, ab=None, canary=canary))
    found = build_plan(spec, rate=daily, errors=0.005)
    # 1,080 requests a day in one hour: 540 of each arm in a day are too few for a proof, and take most of it.
    assert found.seconds is None
    assert found.stages[0].samples_seconds == pytest.approx(500 / 540 * DAY, rel=0.15)
    assert found.requests_a_day == pytest.approx(1080, rel=0.1)
    assert any("inconclusive" in text for text in found.undecided)
    # Labels of two hours come in time: the release takes the day.
    late = build_plan(spec, rate=daily, errors=0.005, label_delay=timedelta(hours=2))
    assert not any(text.startswith("quality") for text in late.undecided)


def test_requests_in_batches_every_five_minutes_have_no_breaks() -> None:
    times = np.sort(np.concatenate([np.full(100, minute * 300.0) for minute in range(288)]))
    assert estimate_traffic(times, DAY).rate == pytest.approx(100 / 300, rel=0.02)


def shown(plan: ReleasePlan) -> str:
    console = Console(file=io.StringIO(), width=400)
    show(console, plan)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_a_plan_of_a_short_log_says_requests_first_and_a_time_only_as_observed() -> None:
    minute = shown(build_plan(policy_with(), rate=estimate_traffic(arrivals(60, 0, 60), 60), errors=0.005))
    assert re.search(
        r"promoted after [0-9,]+ requests, at the earliest: they take 2 h at the rate that was measured", minute
    )
    assert "of the last 1m" in minute
    assert " a day" not in minute
    declared = shown(build_plan(policy_with(), rate=60, errors=0.005))
    assert re.search(r"promoted after 2 h, at the earliest \([0-9,]+ requests\)", declared)
    assert "at 60 requests a second (5,184,000 a day), declared" in declared
    assert "0.50% of them fail today; alpha 5.00%" in declared


def test_large_figures_are_written_out() -> None:
    """`.3g` writes 1e+03, also where a command was proposed that does not take it."""
    many = shown(build_plan(policy_with(), rate=12_345, errors=0.005))
    assert "at 12,345 requests a second" in many
    few = shown(build_plan(policy_with(), rate=1e-6, errors=0.005))
    assert "requests take 5,787 days" in few
    assert "e+" not in many + few
    for rate, seconds in ((2_000.0, 60.0), (1e-4, 3 * DAY)):
        found = estimate_traffic(arrivals(rate, 0, seconds), 6.5 * DAY)
        proposed = re.search(r"--requests ([^)]+)", str(found.warning(DAY, DAY)))
        assert proposed is not None
        assert parse_rate(proposed[1]) == pytest.approx(found.rate, rel=1e-3)
