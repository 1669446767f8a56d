"""The steps of a release, from its section of the project file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import UsageError
from cumulant.project.release_section import steps_of
from cumulant.release.spec import AbSpec, ApprovalSpec, CanarySpec, ReleaseSpec, StagesSpec


def test_the_defaults_go_from_mirrored_requests_to_a_holdback() -> None:
    found = steps_of(ReleaseSpec())
    assert [one.label for one in found] == ["shadow", "ab 10%", "canary 10%", "canary 50%", "canary 95%"]
    assert [one.weight for one in found] == [0, 10, 10, 50, 95]
    assert found[0].mirror == 100
    assert found[-1].at_least == 3600


def test_stages_can_be_left_out() -> None:
    found = steps_of(ReleaseSpec(stages=StagesSpec(shadow=None, ab=None)))
    assert [one.stage for one in found] == ["canary"] * 3


@given(st.lists(st.integers(min_value=0, max_value=120), min_size=1, max_size=5))
def test_weights_grow_and_leave_a_holdback_or_are_refused(weights: list[int]) -> None:
    spec = ReleaseSpec(stages=StagesSpec(canary=CanarySpec(weights=[f"{one}%" for one in weights])))
    good = all(0 < one < 100 for one in weights) and weights == sorted(set(weights))
    if good:
        assert [one.weight for one in steps_of(spec) if one.stage == "canary"] == weights
    else:
        with pytest.raises(UsageError):
            steps_of(spec)


@pytest.mark.parametrize(("weight", "good"), [("0%", False), ("1%", True), ("99%", True), ("100%", False)])
def test_an_ab_leaves_requests_to_both_arms_or_is_refused(weight: str, good: bool) -> None:
    spec = ReleaseSpec(stages=StagesSpec(ab=AbSpec(weight=weight)))
    if good:
        assert [f"{one.weight:g}%" for one in steps_of(spec) if one.stage == "ab"] == [weight]
    else:
        with pytest.raises(UsageError, match="without requests to compare"):
            steps_of(spec)


def test_a_longest_time_below_the_shortest_is_refused() -> None:
    with pytest.raises(UsageError, match="shorter than its shortest"):
        steps_of(ReleaseSpec(stages=StagesSpec(canary=CanarySpec(at_least="2h", at_most="1h"))))


def test_an_approval_before_the_canary_needs_a_stage_to_wait_in() -> None:
    spec = ReleaseSpec(approval=ApprovalSpec(before="canary", by=["risk"]), stages=StagesSpec(shadow=None, ab=None))
    with pytest.raises(UsageError, match="first stage"):
        steps_of(spec)
