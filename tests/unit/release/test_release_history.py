"""The champion's history from the gateway's log, and rows of releases that another version of the program wrote."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from releases import MOMENT, QUICK, World, policy_with, release, remembered

from cumulant.core.errors import UsageError
from cumulant.core.traffic import CHAMPION, Arm, Exchange, Routes
from cumulant.flows.release.controller.external_servers import without_shadow
from cumulant.flows.release.start.champion_history import champion_history
from cumulant.release.decide import start
from cumulant.release.evidence.accumulate import count_look, has_history, is_readable, with_history
from cumulant.release.spec import CanarySpec, StagesSpec
from cumulant.testing.traffic import MemoryTraffic


def gateway(version: str = "1") -> MemoryTraffic:
    traffic = MemoryTraffic()
    arm = Arm(name="champion", version=version, endpoints=("http://127.0.0.1:1",))
    traffic.apply(Routes(model="late", revision=3, champion=arm))
    return traffic


def exchange(second: float, **other: object) -> Exchange:
    made = Exchange(
        request="r",
        time=int((1_000_000 + second) * 1e6),
        model="late",
        assigned=CHAMPION,
        served=CHAMPION,
        status=200,
        duration_us=5000,
        key="k",
        revision=3,
    )
    return msgspec.structs.replace(made, **other)


def test_looks_are_counted_as_by_hand() -> None:
    rng, traffic = np.random.default_rng(1), gateway()
    times = np.sort(rng.uniform(0, 400, 5000))
    bad, slow = rng.uniform(size=5000) < 0.1, rng.permutation(5000)
    traffic.put(
        exchange(time, status=500 if failed else 200, duration_us=int(1000 + took))
        for time, failed, took in zip(times, bad, slow, strict=True)
    )
    history, cursor = champion_history(traffic, traffic.in_force("late"), "1", seconds=10, quantile=0.95)
    whole = (times >= 10) & (times < 390)
    assert cursor == "5000"
    assert len(history) == 38
    place = (times[whole] // 10).astype(int) - 1
    assert history.requests.tolist() == np.bincount(place).tolist()
    assert history.bad[:, 0].tolist() == np.bincount(place, weights=bad[whole]).tolist()
    assert history.bad[:, 2].sum() == (1000 + slow[whole] > np.quantile(1000 + slow, 0.95)).sum()


def test_what_another_version_or_another_route_answered_is_no_history_of_the_champion() -> None:
    old = gateway("OLD")
    old.put(exchange(second) for second in range(400))
    assert len(champion_history(old, old.in_force("late"), "1", seconds=10, quantile=0.95)[0]) == 0
    new = gateway()
    new.put(
        exchange(second, **other)
        for second in range(400)
        for other in ({"revision": 2}, {"model": "x"}, {"forced": True})
    )
    assert len(champion_history(new, new.in_force("late"), "1", seconds=10, quantile=0.95)[0]) == 0


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_short_log_is_no_history_and_no_error(count: int) -> None:
    traffic = gateway()
    traffic.put(exchange(second) for second in range(count))
    history, _ = champion_history(traffic, traffic.in_force("late"), "1", seconds=10, quantile=0.95)
    now = start(with_history(release(), history))
    assert not has_history(now)
    after, skewed = count_look(now, World(seed=1).look(now))
    assert (after.seconds, skewed) == (10, False)


def test_large_steps_without_a_log_get_a_history_in_the_release() -> None:
    canary = CanarySpec(weights=["60%", "95%"], at_least="30s", soak="60s", at_most="30m", samples=200)
    now = start(release(policy_with(stages=StagesSpec(shadow=None, ab=None, canary=canary), warm_up="0s")))
    world = World(seed=2)
    for _ in range(13):
        now, _ = count_look(now, world.look(now))
    assert has_history(now)


def test_a_row_that_another_version_of_the_program_wrote_is_seen_to_be_unreadable() -> None:
    now = start(remembered(release()))
    now, _ = count_look(now, World(seed=3).look(now))
    assert is_readable(now)
    assert not is_readable(msgspec.structs.replace(now, memory={"keys": ["k1"], "failing": {"errors": ["k1"]}}))
    board = msgspec.structs.replace(next(iter(now.boards.values())), state={"step": 1, "test": {"champion": [[0.0]]}})
    assert not is_readable(msgspec.structs.replace(now, boards={board.metric: board}))
    quality = msgspec.structs.replace(now.boards["quality"], state={"bounds": {"edges": [0.0]}})
    assert not is_readable(msgspec.structs.replace(now, boards={"quality": quality}))


def test_external_servers_wait_for_no_labels() -> None:
    notes: list[str] = []
    spec = without_shadow(policy_with(stages=QUICK, holdback="until_labels"), notes)
    assert [step.label for step in spec.steps] == ["ab 10%", "canary 10%", "canary 50%", "canary 95%"]
    assert {step.mirror for step in spec.steps} == {0}
    assert "holdback is left out" in notes[1]


def test_a_look_takes_some_time() -> None:
    with pytest.raises(UsageError, match=r"release\.look is 0s"):
        policy_with(look="0s").steps
    assert release().begun == MOMENT
