"""What a release can decide at its traffic, told beforehand."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from releases import policy_with

from cumulant.core.errors import UsageError
from cumulant.flows.release.plan.measured_traffic import parse_rate
from cumulant.flows.release.plan.release_plan import build_plan, plan_release
from cumulant.flows.release.simulation.simulate import simulate
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.flows.release.simulation.world_loading import policy_of
from cumulant.ports.access import Principal
from cumulant.release.spec import AbSpec, CanarySpec, MetricSpec, ReleaseSpec, StagesSpec
from cumulant.release.wording import span


@pytest.mark.parametrize(
    ("text", "rate"), [("200/s", 200), ("30/m", 0.5), ("30/min", 0.5), ("7200/h", 2), ("86400 / d", 1)]
)
def test_traffic_is_read(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "200", "0/s", "-1/s", "x/s", "200/week", "1e9999/s", "200/s/s"])
def test_what_is_no_traffic(text):
    with pytest.raises(UsageError, match="is no traffic"):
        parse_rate(text)


def spec(**other):
    canary = CanarySpec(weights=["50%"], at_least="10m", soak="10m", at_most=other.pop("at_most", "1d"), samples=500)
    return policy_with(stages=StagesSpec(shadow=None, ab=None, canary=canary), **other)


def test_much_traffic_decides_and_little_does_not():
    much = build_plan(spec(), rate=200, errors=0.005)
    assert much.undecided == []
    assert much.advice == []
    assert much.seconds is not None
    assert much.seconds >= 600
    little = build_plan(spec(), rate=2000 / 86_400, errors=0.005)
    assert little.seconds is None
    assert any("not shown" in text for text in little.undecided)
    assert any("add the stage shadow" in text for text in little.advice)
    assert any("backtest" in text for text in little.advice)


def test_at_much_traffic_a_candidate_is_fine_as_soon_as_requests_prove_it():
    """At 300 requests a second the longest time, seven days, was simulated in looks of hours with coarse rates."""
    found = build_plan(policy_with(), rate=300, errors=0.005)
    for stage in found.stages[1:]:
        for power in stage.metrics:
            assert power.fine_seconds < 600
            assert power.harm_longest <= power.harm_shortest


def test_at_much_traffic_a_small_margin_takes_no_more_looks_than_its_events_need():
    """A look of 10 s has 2,500 failures of each arm. 300 releases that were simulated with all of them took 30 s."""
    found = build_plan(spec(metrics={"errors": MetricSpec(margin="1%")}), rate=10_000, errors=0.05)
    assert next(one for one in found.stages[0].metrics if one.metric == "errors").fine_seconds <= 60


def test_stages_of_one_weight_and_longest_time_have_the_same_plan():
    first, second = build_plan(policy_with(), rate=20, errors=0.005).stages[1:3]
    assert (first.name, second.name) == ("ab 10%", "canary 10%")
    for one, other in zip(first.metrics, second.metrics, strict=True):
        assert (one.harm_longest, one.fine_seconds) == (other.harm_longest, other.fine_seconds)
    assert first.metrics[0].harm_shortest < second.metrics[0].harm_shortest  # 30 minutes against 10


def test_more_traffic_sees_smaller_harm_and_needs_less_time():
    slow, fast = (build_plan(spec(), rate=rate, errors=0.005).stages[0] for rate in (2, 200))
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
    found = build_plan(policy_with(stages=stages), rate=0.02, errors=0.005)
    assert any(text.startswith("ab 10%: its 1,000 requests take") for text in found.undecided)
    assert found.seconds is None


def test_labels_that_come_after_the_release_are_told_with_what_stands_for_them():
    found = build_plan(spec(), rate=200, errors=0.005, label_delay=timedelta(days=7))
    late = next(text for text in found.undecided if text.startswith("quality: a label comes 7 days after its request"))
    assert found.seconds is not None
    assert f"and the release is promoted at the earliest after {span(found.seconds)}" in late
    assert found.advice == []
    assert "labelled rows of the past" in found.instead[0]
    assert "holdback: until_labels" in found.instead[1]
    soon = build_plan(spec(), rate=200, errors=0.005, label_delay=timedelta(minutes=1))
    assert (soon.undecided, soon.instead) == ([], [])


def quality(margin, **other):
    return spec(metrics={"quality": MetricSpec(margin=margin, required=True)}, **other)


def test_a_margin_of_quality_that_no_pairs_can_show_is_said():
    """No number of blocks was taken for a whole number: a traceback."""
    found = build_plan(quality(1e-5, evaluation=None), rate=20, errors=0.005)
    assert (found.seconds, found.quality_pairs, found.quality_seconds) == (None, None, None)
    assert any(text.startswith("quality: its margin is too small") for text in found.undecided)
    past = build_plan(quality(1e-5), rate=20, errors=0.005)
    assert past.seconds is not None, "rows of the past may show it"
    assert "inconclusive" not in past.undecided[-1]


def test_a_required_quality_whose_pairs_do_not_come_ends_inconclusive():
    """At 20 requests a second a tenth of them is mirrored; a day was said to suffice for what takes longer."""
    longest = build_plan(quality(0.002, evaluation=None), rate=20, errors=0.005)
    assert longest.quality_seconds < 86_400
    assert longest.seconds == pytest.approx(longest.quality_seconds)
    short = build_plan(quality(0.002, evaluation=None, at_most="3h"), rate=20, errors=0.005)
    assert short.seconds is None
    assert "are needed, and do not come in time, so the release ends as inconclusive" in short.undecided[-1]
    held = build_plan(quality(0.002, evaluation=None, at_most="3h", holdback="until_labels"), rate=20, errors=0.005)
    assert held.seconds < 3 * 3600, "the holdback waits for labels, and no stage before it"


def test_pairs_of_all_stages_count_and_shadow_and_the_last_stage_wait_for_them():
    found = build_plan(
        policy_with(metrics={"quality": MetricSpec(margin=0.001, required=True)}), rate=1.5, errors=0.005
    )
    usual = build_plan(policy_with(), rate=1.5, errors=0.005)
    assert found.stages[0].seconds == found.stages[0].at_most
    assert [one.seconds for one in found.stages[1:-1]] == [one.seconds for one in usual.stages[1:-1]]
    pairs = sum(one.rate * one.mirror / 100 * one.seconds for one in found.stages)
    assert pairs == pytest.approx(found.quality_pairs)


def test_a_holdback_is_told_and_is_no_stage_of_the_plan():
    held = spec(holdback="until_labels")
    found = build_plan(held, rate=200, errors=0.005, label_delay=timedelta(days=7))
    assert [one.name for one in found.stages] == ["canary 50%"]
    assert "after the canary 5% of the callers stay on the champion until labels" in found.instead[-1]


def test_at_little_traffic_more_time_is_proposed_or_a_decision_by_hand():
    little = build_plan(spec(at_most="6h"), rate=0.2, errors=0.005)
    assert little.seconds is None
    assert any("give it more time: release.stages.canary.at_most" in text for text in little.advice)
    least = build_plan(spec(at_most="2h"), rate=0.002, errors=0.005)
    assert any("rarely ends with proof" in text for text in least.advice)


def test_a_harm_that_is_planned_for_is_one_that_is_acted_on():
    """Half as many errors again, 0.25 points, is inside the margin of 0.5 points at any traffic."""
    found = build_plan(spec(), rate=2000, errors=0.005).stages[0].metrics[0]
    assert found.metric == "errors"
    assert found.harm_longest is not None
    assert found.harm_longest > 2.0


def test_the_planned_time_is_within_a_factor_of_three_of_simulated_releases():
    policy = {
        "stages": {
            "shadow": None,
            "ab": None,
            "canary": {
                "weights": ["10%", "50%"],
                "at_least": "2m",
                "soak": "2m",
                "at_most": "6h",
                "samples": 500,
                "mirror": "0%",
            },
        },
        "metrics": {"quality": {"required": False}},
    }
    for rate in (50, 300):
        world = msgspec.convert(
            {"policy": policy, "traffic": {"requests_per_second": rate}, "errors": {"champion": 0.005}}, ReleaseWorld
        )
        plan = build_plan(policy_of(world, ReleaseSpec()), rate=rate, errors=0.005)
        median = simulate(world, ReleaseSpec(), releases=3, seed=1, processes=1).seconds.median
        assert median / 3 < plan.seconds < median * 3


def test_a_candidate_that_the_gate_refused_is_reported_before_the_release(late, tmp_path):
    registry, folder = late.registry(), tmp_path / "servable"
    folder.mkdir()
    with registry.run("late", "1", key="1") as run:
        registry.register(run, "late", folder, [1], tags={"cumulant.verdict": "refused"}, key="1")
    registry.alias("late", "candidate", "1")
    plan = plan_release(late, principal=Principal("user:ada"), requests="200/s")
    assert "the gate refused version 1 of late" in " ".join(plan.warnings)
