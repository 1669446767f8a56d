"""Pairs of a block are one value: when a block is over, what becomes of it, and how long it is."""

from __future__ import annotations

import math
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import MOMENT, new_board, policy_with

from cumulant.core.errors import UsageError
from cumulant.flows.release.start import evidence_blocks
from cumulant.outcomes.join.joining import Outcomes
from cumulant.outcomes.join.mirrored_pairs import GradedPair
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.release.evidence.metric_state import with_differences
from cumulant.release.evidence.metrics import metrics
from cumulant.release.spec import MetricSpec
from cumulant.statistics.sequential.long_run_variance import LongRunVariance
from cumulant.statistics.sequential.means import Paired
from cumulant.statistics.sequential.symmetric import PairedBlocks
from cumulant.testing.log import folder_log


def named(name, **spec):
    return metrics(policy_with(metrics={name: MetricSpec(**spec)} if spec else {}))[name]


def board_of(metric):
    return new_board(metric, harm_bar=4.4, fine_bar=3.0)


LOOKS = st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40), max_size=14)


@given(LOOKS, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_block_is_over_when_it_has_lasted_and_holds_enough_and_gives_its_mean(looks, length):
    metric = named("quality")
    board, test = board_of(metric), PairedBlocks.start(margin=0.005, edge=0.005)
    means = LongRunVariance.start()
    held, lasted, every = [], 0, []
    for look in looks:
        board = with_differences(board, metric, np.asarray(look, dtype=float).reshape(-1, 2), looks=length)
        held, every, lasted = [*held, *look], [*every, *look], lasted + bool(held or look)
        if lasted >= length and len(held) >= 50:
            mean = float(np.mean([b - a for a, b in held]))
            test = test.add(mean, len(held), weight=0.5 if means.visible() < 2 else 1 / means.design_effect())
            means = means.add([mean])
            held, lasted = [], 0
    assert board.harm == pytest.approx(float(test.log_harm()), abs=1e-9)
    assert board.fine == pytest.approx(float(test.log_not_worse()), abs=1e-9)
    assert board.samples == ({"champion": len(every), "candidate": len(every)} if every else {})
    if every:
        assert board.candidate == pytest.approx(float(np.mean([b for _, b in every])))


def test_one_batch_of_labels_is_one_value_however_large():
    metric = named("quality")
    board = with_differences(board_of(metric), metric, np.array([(0.1, 0.4)] * 100_000), looks=1)
    assert board.most_harm <= math.log(2)
    assert not board.verdict.harmful


def test_a_large_loss_is_not_cut_to_a_scale():
    metric = named("quality", margin=4.0)
    board = board_of(metric)
    for _ in range(26):
        board = with_differences(board, metric, np.array([(30.0, 60.0)] * 50), looks=1)
    assert board.verdict.harmful
    assert board.candidate == 60.0


def test_disagreement_is_harm_beyond_its_margin_and_not_before():
    metric = named("disagreement", margin="2%")
    assert metric.fewest == 250
    for share, harmful, fine in ((0.01, False, True), (0.05, True, False)):
        board = board_of(metric)
        for _ in range(26):
            differing = round(400 * share)
            pairs = np.array([(0.0, 1.0)] * differing + [(0.0, 0.0)] * (400 - differing))
            board = with_differences(board, metric, pairs, looks=1)
        assert (board.verdict.harmful, board.verdict.acceptable) == (harmful, fine)


def test_a_metric_of_your_own_is_averaged_over_its_block_and_needs_no_symmetry():
    metric = named("cost", prometheus="x", bounds=(0.0, 10.0), margin=1.0)
    board = board_of(metric)
    for value in (1.0, 3.0, 5.0, -9.0, 2.0):
        board = with_differences(board, metric, np.array([(0.0, value)]), looks=2)
    assert board.harm == pytest.approx(float(Paired.start(margin=1.0, scale=10.0).add([2.0, -2.0]).log_harm()))


def test_a_change_of_the_mean_score_in_either_direction_is_harm():
    metric = named("prediction", margin=0.05)
    for shift, harmful, fine in ((0.0, False, True), (0.2, True, False), (-0.2, True, False)):
        board = board_of(metric)
        for _ in range(26):
            board = with_differences(board, metric, np.array([(0.5, 0.5 + shift)] * 60), looks=1)
        assert (board.verdict.harmful, board.verdict.acceptable, board.beyond) == (harmful, fine, harmful)


def test_days_that_depend_on_each_other_prove_less_than_their_number():
    """Differences that stay for twelve blocks: nulls of 96 blocks, of which each reaches harm by chance."""
    metric, rng = named("quality"), np.random.default_rng(8)
    harmful = 0
    for _ in range(36):
        board = board_of(metric)
        for mean in 0.005 + 0.01 * np.repeat(rng.normal(size=8), 12):
            board = with_differences(board, metric, np.array([(0.1, 0.1 + mean)] * 50), looks=1)
        harmful += board.verdict.harmful
    assert harmful <= 18  # all blocks taken as independent: three quarters of 36 and more; the first dozen are believed


def test_what_the_gateway_counts_has_no_block_of_its_own():
    with pytest.raises(UsageError, match="no block of its own"):
        named("errors", block="1d")
    assert named("quality", block="1d").block == 86_400


# -- how long a block is

TIMES = st.lists(st.tuples(st.integers(0, 200_000_000), st.floats(-1, 1)), max_size=40)


@given(TIMES, st.sampled_from([0.5, 7.0, 60.0]))
def test_means_of_blocks_are_those_of_the_pairs_in_each(pairs, seconds):
    by_block = {}
    for time, difference in pairs:
        by_block.setdefault(math.floor(time / 1e6 / seconds), []).append(difference)
    true = [float(np.mean(by_block[place])) for place in sorted(by_block)]
    assert evidence_blocks.block_means(pairs, seconds).tolist() == pytest.approx(true, abs=1e-9)


def test_a_block_grows_until_the_differences_of_neighbours_are_nearly_uncorrelated():
    draw = np.random.default_rng(1)
    alone = draw.normal(size=400)
    assert evidence_blocks.block_factor(alone) == 1
    assert evidence_blocks.block_factor(np.repeat(draw.normal(size=100), 4) + 0.1 * alone) >= 4
    assert evidence_blocks.block_factor(alone[:5]) is None, "too little to see"


class Earlier:
    """Pairs a minute apart whose differences stay the same for eight of them; version 3 took part in the newest."""

    def __init__(self, *, candidate):
        draw = np.random.default_rng(2)
        self.found = [
            graded(minute, difference, candidate)
            for minute, difference in enumerate(np.repeat(draw.normal(size=60), 8))
        ]

    def newest_graded(self, limit):
        return self.found[-limit:]

    def newest_pairs(self, limit):
        del limit
        return []


def graded(minute, difference, candidate):
    return GradedPair(
        id="a",
        row=0,
        time=MOMENT + timedelta(minutes=minute),
        model="late",
        champion_version="2",
        candidate_version=candidate,
        champion=0.5,
        candidate=0.5 + difference,
        weight=1.0,
        label=True,
        label_known_time=MOMENT,
    )


@pytest.mark.parametrize(("candidate", "longer"), [("3", True), ("4", False)])
def test_earlier_pairs_of_the_champion_lengthen_the_block_of_quality(monkeypatch, candidate, longer):
    monkeypatch.setattr(evidence_blocks, "outcomes_of", lambda _: Earlier(candidate=candidate))
    spec = policy_with(look="10s", block="20s", metrics={"quality": MetricSpec(block="1m")})
    found = evidence_blocks.looks_by_metric(SimpleNamespace(), spec, "3")
    assert evidence_blocks.looks_a_block(spec) == 2
    assert list(found) == ["quality"]
    assert found["quality"] >= 48 if longer else found["quality"] == 6
    assert [text.split("evidence of ")[1][:7] for text in evidence_blocks.longer_block_notes(found, spec)] == [
        "quality"
    ] * longer


def test_a_first_release_has_the_declared_blocks(monkeypatch, tmp_path):
    logs = OutcomeLogs(*(folder_log(tmp_path / name) for name in ("labels", "joined", "inbox")))
    monkeypatch.setattr(evidence_blocks, "outcomes_of", lambda _: Outcomes(logs, folder_log(tmp_path / "log")))
    own = MetricSpec(prometheus="x", bounds=(0.0, 1.0), margin=0.1, block="1m")
    spec = policy_with(look="10s", block="10s", metrics={"cost": own})
    found = evidence_blocks.looks_by_metric(SimpleNamespace(), spec, "1")
    assert found == {"cost": 6, "quality": 8640}, "without any earlier pair, a day of outcomes is one block"
    (note,) = evidence_blocks.longer_block_notes(found, spec)
    assert note.startswith("nothing says how long outcomes depend on each other, so that 1d of pairs are one block")
    declared = policy_with(look="10s", block="10s", metrics={"quality": MetricSpec(block="1m")})
    assert evidence_blocks.looks_by_metric(SimpleNamespace(), declared, "1") == {"quality": 6}
    assert evidence_blocks.longer_block_notes({"quality": 6}, declared) == []
