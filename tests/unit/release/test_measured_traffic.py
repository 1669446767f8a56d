"""The traffic that `release plan` reads off the prediction log: breaks are no traffic, and quiet hours are no breaks."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from cumulant.release.spec import CanarySpec, ReleaseSpec, StagesSpec
from cumulant.runtime.release.measured_traffic import traffic_of
from cumulant.runtime.release.planning import planned

DAY = 86_400.0


def arrivals(rate: float, start: float, seconds: float, seed: int = 0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return start + np.sort(dice.uniform(0, seconds, dice.poisson(rate * seconds)))


def test_a_day_without_requests_since_the_last_one_does_not_dilute_the_rate() -> None:
    # Three minutes at 200 requests a second, and a day later a plan: as the mean over the day this was .4 a second.
    found = traffic_of(arrivals(200, 0, 180), DAY)
    assert found.rate == pytest.approx(200, rel=0.05)
    assert found.longest == pytest.approx(180, rel=0.05)
    assert found.rate_within(DAY) == found.rate
    assert found.warning(120, DAY) is None
    assert "came for 3m at most" in str(found.warning(600, DAY))
    assert found.warning(None, DAY) == found.warning(600, DAY)


def test_bursts_a_day_apart_are_measured_each_by_itself() -> None:
    times = np.concatenate([arrivals(50, day * DAY, 300, day) for day in range(4)])
    assert traffic_of(times, 3 * DAY + 300).rate == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("rate", [2 / 3600, 10 / DAY, 0.01, 5.0])
def test_traffic_without_breaks_has_its_mean_rate(rate: float) -> None:
    seconds = min(7 * DAY, 20_000 / rate)
    found = traffic_of(arrivals(rate, 0, seconds), seconds)
    assert found.rate == pytest.approx(rate, rel=0.3)
    assert found.share > 0.9


def test_quiet_nights_are_traffic_and_closed_ones_are_breaks() -> None:
    quiet = np.sort(np.concatenate([arrivals(1, d * DAY + h * 3600, 3600, 24 * d + h) if 8 <= h < 20
                                    else arrivals(0.02, d * DAY + h * 3600, 3600, 24 * d + h)
                                    for d in range(5) for h in range(24)]))  # fmt: skip
    assert traffic_of(quiet, 5 * DAY).rate == pytest.approx(len(quiet) / (5 * DAY), rel=0.02)
    closed = np.concatenate([arrivals(1, day * DAY, 8 * 3600, day) for day in range(5)])
    found = traffic_of(closed, 4 * DAY + 8 * 3600)
    assert found.rate == pytest.approx(1, rel=0.05)
    assert found.longest == pytest.approx(8 * 3600, rel=0.01)
    assert "came for 8h at most" in str(found.warning(20 * 3600, DAY))
    # A stage of a day runs through the night: it sees a third of the requests.
    assert found.rate_within(3600) == found.rate
    assert found.rate_within(DAY) == pytest.approx(1 / 3, rel=0.05)


def test_a_length_of_time_is_shown_in_two_units() -> None:
    times = np.concatenate([arrivals(1, day * 2 * DAY, DAY + 7265.0, day) for day in range(3)])
    assert "came for 1d2h at most" in str(traffic_of(times, 6 * DAY).warning(3 * DAY, 3 * DAY))


def test_a_plan_counts_the_breaks_of_a_stage_that_is_longer_than_requests_come() -> None:
    daily = traffic_of(np.concatenate([arrivals(0.3, day * DAY, 3600, day) for day in range(7)]), 6 * DAY + 3600)
    canary = CanarySpec(weights=["50%"], at_least="10m", soak="10m", at_most="1d", samples=500)
    spec = ReleaseSpec(stages=StagesSpec(shadow=None, ab=None, canary=canary))
    found = planned(spec, rate=daily, source=daily.source(), errors=0.005)
    # 1,080 requests a day in one hour: 540 of each arm in a day are too few for a proof, and take most of it.
    assert found.seconds is None
    assert found.stages[0].samples_seconds == pytest.approx(500 / 540 * DAY, rel=0.15)
    assert found.requests_a_day == pytest.approx(1080, rel=0.1)
    assert any("inconclusive" in text for text in found.undecided)
    # Labels of two hours come in time: the release takes the day.
    late = planned(spec, rate=daily, source="", errors=0.005, label_delay=timedelta(hours=2))
    assert not any(text.startswith("quality") for text in late.undecided)


def test_requests_in_batches_every_five_minutes_have_no_breaks() -> None:
    times = np.sort(np.concatenate([np.full(100, minute * 300.0) for minute in range(288)]))
    assert traffic_of(times, DAY).rate == pytest.approx(100 / 300, rel=0.02)
