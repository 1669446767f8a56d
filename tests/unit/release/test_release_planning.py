"""What a release can decide at its traffic, told beforehand."""

from __future__ import annotations

import pytest

from cumulant.core.errors import UsageError
from cumulant.release.spec import AbSpec, CanarySpec, ReleaseSpec, StagesSpec
from cumulant.runtime.release.planning import planned, rate_of


@pytest.mark.parametrize(
    ("text", "rate"), [("200/s", 200), ("30/m", 0.5), ("30/min", 0.5), ("7200/h", 2), ("86400 / d", 1)]
)
def test_traffic_is_read(text, rate):
    assert rate_of(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "200", "0/s", "-1/s", "x/s", "200/week", "1e9999/s", "200/s/s"])
def test_what_is_no_traffic(text):
    with pytest.raises(UsageError, match="is no traffic"):
        rate_of(text)


def spec(**other):
    canary = CanarySpec(weights=["50%"], at_least="10m", soak="10m", at_most=other.pop("at_most", "1d"), samples=500)
    return ReleaseSpec(stages=StagesSpec(shadow=None, ab=None, canary=canary), **other)


def test_much_traffic_decides_and_little_does_not():
    much = planned(spec(), rate=200, source="declared", errors=0.005)
    assert much.undecided == []
    assert much.advice == []
    assert much.seconds is not None
    assert much.seconds >= 600
    little = planned(spec(), rate=2000 / 86_400, source="declared", errors=0.005)
    assert little.seconds is None
    assert any("not shown" in text for text in little.undecided)
    assert "add the stage shadow" in little.advice[0]
    assert any("backtest" in text for text in little.advice)


def test_more_traffic_sees_smaller_harm_and_needs_less_time():
    slow, fast = (planned(spec(), rate=rate, source="declared", errors=0.005).stages[0] for rate in (2, 200))
    assert fast.samples_seconds < slow.samples_seconds
    first, second = slow.metrics[0], fast.metrics[0]
    assert (second.harm_shortest or 99) < (first.harm_shortest or 99)
    assert second.fine_seconds < first.fine_seconds


def test_samples_that_never_come():
    stages = StagesSpec(
        shadow=None,
        ab=AbSpec(weight="10%", at_least="1m", at_most="1h", samples=1000),
        canary=CanarySpec(weights=["50%"]),
    )
    found = planned(ReleaseSpec(stages=stages), rate=0.02, source="declared", errors=0.005)
    assert any(text.startswith("ab 10%: its 1,000 requests take") for text in found.undecided)
    assert found.seconds is None
