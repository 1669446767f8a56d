"""What a release's status says of its assumptions, in worlds where each is seen to fail."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from releases import QUICK, World, policy_with, release, remembered

from cumulant.release.assumptions import assumption_notes
from cumulant.release.decide import start
from cumulant.release.evidence.accumulate import count_look, with_history
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.key_statistics import KeyStatistics, units
from cumulant.release.evidence.look import Look, Requests, ScorePair, ScorePairs
from cumulant.release.state import Release

PAIRS = ScorePairs.of([ScorePair(champion=0.5, candidate=0.5, differs=False)])
CANARY = policy_with(stages=msgspec.structs.replace(QUICK, shadow=None), warm_up="0s")


def requests(keys: np.ndarray, candidate: np.ndarray, failed: np.ndarray) -> Requests:
    count = len(keys)
    return Requests(candidate, failed, np.zeros(count, dtype=bool), np.full(count, 5000.0), keys.astype(np.uint64))


def after(now: Release, *, keys: int, failing: int, looks: int = 20, seed: int = 0) -> Release:
    """After looks of 2,000 requests; the candidate has a fifth of the keys, of which the first few fail always."""
    rng = np.random.default_rng(seed)
    for _ in range(looks):
        key = rng.integers(1, keys + 1, 2000)
        candidate = key % 5 == 0
        failed = (rng.uniform(size=2000) < 0.005) | (candidate & (key <= failing))
        now, _ = count_look(now, Look(seconds=10, requests=requests(key, candidate, failed), pairs=PAIRS))
    return now


def test_all_as_assumed_says_only_how_far_the_history_reaches() -> None:
    now = after(start(remembered(release(CANARY))), keys=2000, failing=0)
    assert assumption_notes(now) == [
        "the champion's log shows how failures depend on each other within 5m20s, and nothing of longer times"
    ]


def test_a_short_history_few_keys_and_a_warm_up_are_said() -> None:
    now = start(release(msgspec.structs.replace(CANARY, warm_up=30.0)))
    now = after(now, keys=10, failing=0, looks=4)
    text = "; ".join(assumption_notes(now))
    assert "the first 30 s of the candidate with" in text
    assert "the champion's log covers 4 of the 12 looks" in text
    assert "fewer than 5 keys fall to the candidate: its requests are no evidence" in text


def test_keys_that_fail_again_and_again_count_for_less_and_roll_nothing_back() -> None:
    now = after(start(remembered(release(CANARY))), keys=600, failing=5, looks=60)
    told = [text for text in assumption_notes(now) if "come from few keys" in text]
    assert len(told) == 1
    assert told[0].startswith("failures of the candidate")
    assert now.boards["errors"].candidate > 2 * now.boards["errors"].champion, "as it looks, it is far worse"
    assert not now.boards["errors"].verdict.harmful


def test_failures_in_slow_bursts_count_for_less() -> None:
    rng = np.random.default_rng(1)
    level = np.repeat(rng.gamma(1.0, 1.0, 60), 30)
    bad = np.stack([rng.poisson(10 * level), np.zeros(1800), rng.poisson(100, 1800)], axis=1).astype(float)
    history = ChampionHistory(requests=np.full(1800, 2000.0), bad=bad, slow_us=9650.0)
    now = start(with_history(release(CANARY), history))
    told = [text for text in assumption_notes(now) if "longer than a block" in text]
    assert len(told) == 1
    assert told[0].startswith("failures depend on each other")


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 1.0, 1.3), (0.02, 4.0, 40.0)])
def test_dispersion_over_keys_by_hand(share: float, least: float, most: float) -> None:
    """Independent failures of equal keys vary as Poisson does; where a fiftieth of the keys always fails, far more."""
    rng = np.random.default_rng(2)
    table, sums = KeyStatistics.start(), np.zeros((2, 4))
    bad_keys = rng.permutation(500)[: int(500 * share)] + 1
    values = {key: [0.0, 0.0] for key in range(1, 501)}
    for _ in range(40):
        key = rng.integers(1, 501, 400)
        failed = (rng.uniform(size=400) < 0.01) | np.isin(key, bad_keys)
        one = units(requests(key, np.ones(400, dtype=bool), failed), slow=np.zeros(400, dtype=bool))
        table, sums = table.add(one), sums + one.sums()
        for name in set(key.tolist()):
            values[name][0] += 1
            values[name][1] += failed[key == name].mean()
    looks, bad = np.array(list(values.values())).T
    rate = bad.sum() / looks.sum()
    true = ((bad - rate * looks) ** 2).sum() / bad.sum() * 500 / 499
    found = KeyStatistics.from_json(table.to_json()).dispersion(sums)[1, 0]
    assert found == pytest.approx(max(true, 1.0), rel=1e-3)
    assert least <= found <= most


def test_many_more_keys_than_are_kept_lose_no_failing_one() -> None:
    rng, table = np.random.default_rng(3), KeyStatistics.start()
    for _ in range(10):
        key = rng.integers(10, 100_000, 4000)
        key[:3] = (1, 2, 3)
        one = units(requests(key, np.ones(4000, dtype=bool), key <= 3), slow=np.zeros(4000, dtype=bool))
        table = table.add(one)
    assert len(table.key) == 1024
    assert {1, 2, 3} <= set(table.key.tolist())
    assert table.bad[np.isin(table.key, [1, 2, 3]), 0].tolist() == [10.0, 10.0, 10.0]


def test_a_world_of_many_callers_and_its_stored_state_go_on_alike() -> None:
    now = start(remembered(release(CANARY)))
    look = World(seed=5).look(now)
    here, _ = count_look(now, look)
    stored, _ = count_look(msgspec.convert(msgspec.json.decode(msgspec.json.encode(now)), Release), look)
    assert msgspec.json.encode(here) == msgspec.json.encode(stored)


def test_mirrored_requests_without_pairs_are_said_until_there_is_one() -> None:
    now, world = start(remembered(release())), World(seed=3)
    assert now.mirror

    def told() -> list[str]:
        return [text for text in assumption_notes(now) if "do the clocks of the machines differ?" in text]

    for number in range(12):
        assert told() == [], number
        now, _ = count_look(now, dataclasses.replace(world.look(now), pairs=ScorePairs()))
    assert len(told()) == 1
    assert "in the last 2m, and of none" in told()[0]
    now, _ = count_look(now, Look(seconds=10))
    assert len(told()) == 1, "a look without requests says nothing"
    now, _ = count_look(now, world.look(now))
    assert told() == []
