"""A release that keeps a holdback until labels of its own requests decide."""

from __future__ import annotations

import copy
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from releases import QUICK, World, policy_with, release, remembered

from cumulant.core.errors import UsageError
from cumulant.release.admission import with_margins
from cumulant.release.decide import decide, list_unmet_conditions, start
from cumulant.release.evidence.accumulate import count_look
from cumulant.release.evidence.look import Look, LossPairs
from cumulant.release.spec import HoldbackSpec, MetricSpec, ReleaseSpec
from cumulant.release.state import Release

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
SPEC = with_margins(
    policy_with(
        stages=QUICK,
        holdback="until_labels",
        metrics={"disagreement": MetricSpec(margin=0.9), "quality": MetricSpec(margin=0.01, block="10s")},
    ),
    None,
)


def _looked(world: World, now: Release, losses: LossPairs | None) -> Release:
    look = _with_losses(world.look(now), losses or LossPairs())
    counted, skewed = count_look(now, look)
    return decide(counted, skewed=skewed, at=MOMENT)


def _with_losses(look: Look, losses: LossPairs) -> Look:
    return Look(seconds=look.seconds, requests=look.requests, pairs=look.pairs, losses=losses)


def _losses(rng: np.random.Generator, difference: float) -> LossPairs:
    champion = rng.uniform(0, 0.3, 400)
    return LossPairs(champion=champion, candidate=champion + rng.normal(difference, 0.05, 400))


@pytest.fixture(scope="module")
def begun() -> tuple[World, Release]:
    """The release when its holdback begins; no label has come."""
    world = World(seed=3, rate=400)
    now = start(remembered(release(SPEC)))
    for _ in range(400):
        now = _looked(world, now, None)
        if now.step.stage == "holdback" or now.over:
            break
    return world, now


@pytest.fixture
def held(begun: tuple[World, Release]) -> tuple[World, Release]:
    return copy.deepcopy(begun)


def test_the_holdback_is_the_last_step_and_leaves_its_share_to_the_champion() -> None:
    last = SPEC.steps[-1]
    assert (last.label, last.weight, last.mirror, last.at_most) == ("holdback 5%", 95.0, 100.0, 30 * 86_400)
    assert policy_with().steps[-1].stage == "canary"
    declared = HoldbackSpec(share="2%", at_most="10d")
    assert policy_with(holdback=declared).steps[-1].weight == 98.0
    with pytest.raises(UsageError, match="keeps 20% on the champion, after 5% in the canary"):
        policy_with(holdback=HoldbackSpec(share="20%")).steps


def test_it_is_written_as_a_word_or_as_a_section() -> None:
    assert msgspec.convert({"holdback": "until_labels"}, ReleaseSpec).holdback == "until_labels"
    assert msgspec.convert({"holdback": {"share": "1%"}}, ReleaseSpec).holdback == HoldbackSpec(share="1%")


def test_without_labels_it_waits_and_ends_without_a_promotion(held: tuple[World, Release]) -> None:
    world, now = held
    assert (now.status, now.step.label, now.weight) == ("running", "holdback 5%", 95.0)
    for _ in range(30):
        now = _looked(world, now, None)
    assert now.status == "running"
    assert any("labels of the release have not yet shown" in text for text in list_unmet_conditions(now))
    now = msgspec.structs.replace(now, seconds=30 * 86_400.0)
    now = _looked(world, now, None)
    assert now.status == "inconclusive"


@pytest.mark.parametrize(("difference", "end"), [(-0.002, "promoted"), (0.05, "rolled_back")])
def test_labels_that_come_later_decide(held: tuple[World, Release], difference: float, end: str) -> None:
    world, now = held
    rng = np.random.default_rng(0)
    for _ in range(60):
        now = _looked(world, now, _losses(rng, difference))
        if now.over:
            break
    assert now.status == end, (now.reason, list_unmet_conditions(now))


def test_what_rows_of_the_past_showed_is_no_label_of_the_release(held: tuple[World, Release]) -> None:
    world, now = held
    board = msgspec.structs.replace(now.boards["quality"], prior=20.0)
    now = msgspec.structs.replace(now, boards=now.boards | {"quality": board})
    for _ in range(30):
        now = _looked(world, now, None)
    assert now.status == "running"
