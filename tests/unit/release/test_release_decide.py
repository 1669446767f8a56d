"""What a release does next, in every state and for everything that can be seen."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import MOMENT, QUICK, World, played, release

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.decide import approve, decide, ended, guard, pause, promote, resume, start
from cumulant.release.figures import seen
from cumulant.release.look import Look
from cumulant.release.pulse import ArmPulse, Pulse
from cumulant.release.spec import ApprovalSpec, MetricSpec, ReleaseSpec, ShadowSpec
from cumulant.release.state import Board, Release, wanted_routes


def test_a_sound_candidate_goes_through_every_step_and_is_promoted() -> None:
    over = played(World(seed=1), release())
    assert over.status == "promoted"
    assert [one.label for one in over.passed] == ["shadow", "ab 10%", "canary 10%", "canary 50%", "canary 95%"]
    routes = wanted_routes(over)
    assert routes.champion.version == "2"
    assert routes.candidate is None


@pytest.mark.parametrize(
    ("world", "told"),
    [
        (World(seed=2, errors={CANDIDATE: 0.03}), "errors became worse"),
        (World(seed=3, took={CANDIDATE: 9.0}), "latency became worse"),
        (World(seed=4, rate=50, brier={CANDIDATE: 0.2}), "quality became worse"),
    ],
    ids=["errors", "latency", "quality"],
)
def test_a_worse_candidate_comes_back_with_the_reason(world: World, told: str) -> None:
    shadow = ShadowSpec(at_least="4m", at_most="10m", samples=100)  # a look is a block, and a dozen prove something
    over = played(world, release(ReleaseSpec(stages=msgspec.structs.replace(QUICK, shadow=shadow))))
    assert over.status == "rolled_back"
    assert told in over.reason
    assert wanted_routes(over).weight == 0
    assert wanted_routes(over).champion.version == "1"


@pytest.mark.parametrize(
    ("rates", "status"), [((0.02, 0.022), "running"), ((0.02, 0.026), "rolled_back"), ((0.0001, 0.002), "rolled_back")]
)
def test_a_proven_worsening_comes_back_above_the_margin_or_as_a_multiple(
    rates: tuple[float, float], status: str
) -> None:
    board = Board(
        metric="errors", unit="%", margin=0.005, harm_bar=4.0, fine_bar=3.0, most_harm=9.0, champion=rates[0],
        candidate=rates[1],
    )  # fmt: skip
    assert decide(release(status="running", boards={"errors": board}), at=MOMENT).status == status


@pytest.mark.parametrize(("loss", "status"), [(0.104, "running"), (0.106, "rolled_back")])
def test_a_loss_that_is_proven_and_within_the_margin_brings_nothing_back(loss: float, status: str) -> None:
    board = Board(
        metric="quality", margin=0.005, harm_bar=4.0, fine_bar=3.0, most_harm=9.0, champion=0.1, candidate=loss
    )
    assert decide(release(status="running", boards={"quality": board}), at=MOMENT).status == status


@pytest.mark.parametrize(
    ("most_fine", "seconds", "label"), [(0.0, 100, "shadow"), (3.1, 100, "ab 10%"), (0.0, 600, "ab 10%")]
)
def test_mirroring_goes_on_until_what_is_required_of_pairs_is_shown_or_its_longest_time(
    most_fine: float, seconds: float, label: str
) -> None:
    spec = ReleaseSpec(stages=QUICK, metrics={"quality": MetricSpec(required=True)})
    board = Board(metric="quality", margin=0.005, harm_bar=4.0, fine_bar=3.0, most_fine=most_fine)
    now = release(
        spec, status="running", boards={"quality": board}, seconds=seconds, samples={CANDIDATE: 500, CHAMPION: 0}
    )
    assert decide(now, at=MOMENT).step.label == label


def test_a_promotion_names_what_was_shown_and_nothing_else() -> None:
    spec = ReleaseSpec(stages=QUICK, metrics={"latency": MetricSpec(required=False)})
    over = played(World(seed=1), start(release(spec)))
    assert over.status == "promoted"
    assert not over.boards["latency"].required
    assert over.reason == "shown to be within the margin: errors, timeouts"


def test_without_traffic_nothing_is_ever_promoted() -> None:
    now = start(release())
    for _ in range(1000):
        counted, skewed = seen(now, Look(seconds=10))
        now = decide(counted, skewed=skewed, at=MOMENT)
    assert now.status == "inconclusive"
    assert "lacks" in now.reason


def test_a_split_that_is_not_kept_ends_as_broken() -> None:
    world = World(seed=6)
    now = played(world, release(), most=3)
    assert now.step.stage == "ab"
    for _ in range(50):
        look = world.look(msgspec.structs.replace(now, steps=(msgspec.structs.replace(now.step, weight=30.0),), at=0))
        counted, skewed = seen(now, look)
        now = decide(counted, skewed=skewed, at=MOMENT)
        if now.over:
            break
    assert now.status == "inconclusive"
    assert "split is broken" in now.reason


def test_a_key_that_failed_on_one_arm_does_not_count_again_on_the_other() -> None:
    now = played(World(seed=7), release(), most=3)
    one = World(seed=8).look(now).exchanges[0]
    bad = [msgspec.structs.replace(one, assigned=arm, status=500, key="k1") for arm in (CHAMPION, CANDIDATE, CHAMPION)]
    first, _ = seen(now, Look(seconds=10, exchanges=bad[:1]))
    later, _ = seen(first, Look(seconds=10, exchanges=bad[1:]))
    state = later.boards["errors"].state
    before = now.boards["errors"].state
    assert [state["bad"][arm] - before["bad"][arm] for arm in (CHAMPION, CANDIDATE)] == [1, 0]
    assert state["requests"][CANDIDATE] - before["requests"][CANDIDATE] == 1


def test_what_testers_force_counts_for_nothing() -> None:
    now = played(World(seed=7), release(), most=3)
    look = World(seed=8, errors={CANDIDATE: 1.0}).look(now)
    forced = [msgspec.structs.replace(one, forced=True) for one in look.exchanges]
    counted, _ = seen(now, Look(seconds=10, exchanges=forced))
    assert counted.samples == now.samples


def test_what_the_old_weights_assigned_counts_for_no_step() -> None:
    now = played(World(seed=7), release(), most=3)
    look = World(seed=8).look(msgspec.structs.replace(now, revision=now.revision - 1))
    counted, _ = seen(now, look)
    assert counted.samples == now.samples


def test_a_rescue_by_the_champion_is_the_candidates_failure() -> None:
    now = played(World(seed=9), release(), most=3)
    world = World(seed=10)
    for _ in range(200):
        look = world.look(now)
        lost = [
            msgspec.structs.replace(one, served=CHAMPION) if one.assigned == CANDIDATE and number % 7 == 0 else one
            for number, one in enumerate(look.exchanges)
        ]
        counted, skewed = seen(now, msgspec.structs.replace(look, exchanges=lost))
        now = decide(counted, skewed=skewed, at=MOMENT)
        if now.over:
            break
    assert now.status == "rolled_back"
    assert "errors" in now.reason


HARD = {
    "shape": ArmPulse(misshapen=1),
    "not ready": ArmPulse(not_ready=4.0),
    "crash loop": ArmPulse(restarts=3),
    "errors": ArmPulse(requests=40, failures=30),
}


@pytest.mark.parametrize("status", ["running", "paused", "awaiting_approval"])
@pytest.mark.parametrize("kind", HARD)
def test_hard_failures_need_no_statistics(status: str, kind: str) -> None:
    now = guard(release(status=status), Pulse(candidate=HARD[kind]), at=MOMENT)
    assert now.status == "rolled_back"
    assert now.reason.startswith("the candidate")


@pytest.mark.parametrize("kind", ["not ready", "crash loop", "errors"])
def test_a_failure_that_the_champion_shares_is_not_blamed_on_the_candidate(kind: str) -> None:
    now = guard(release(status="running"), Pulse(candidate=HARD[kind], champion=HARD[kind]), at=MOMENT)
    assert now.status == "running"
    assert "not blamed" in now.reason


def test_an_approval_before_the_promotion_waits_with_the_holdback() -> None:
    spec = ReleaseSpec(stages=QUICK, approval=ApprovalSpec(before="promote", by=["risk"]))
    waiting = played(World(seed=11), release(spec))
    assert waiting.status == "awaiting_approval"
    assert wanted_routes(waiting).weight == 95
    assert approve(waiting, at=MOMENT).status == "promoted"


def test_an_approval_before_the_canary_waits_in_the_stage_before() -> None:
    spec = ReleaseSpec(stages=QUICK, approval=ApprovalSpec(before="canary", by=["risk"]))
    waiting = played(World(seed=12), release(spec))
    assert waiting.status == "awaiting_approval"
    assert waiting.step.stage == "ab"
    agreed = approve(waiting, at=MOMENT)
    assert agreed.step.label == "canary 10%"
    assert played(World(seed=13), agreed).status == "promoted"


VERBS = st.lists(
    st.sampled_from(["start", "pause", "resume", "approve", "promote", "back", "look", "hard", "both"]), max_size=12
)


@settings(deadline=None, max_examples=40)
@given(VERBS, st.integers(min_value=0, max_value=5))
def test_weights_never_jump_and_an_end_is_an_end(verbs: list[str], seed: int) -> None:
    world, now = World(seed=seed, rate=20), release()
    for verb in verbs:
        after = _done(verb, now, world)
        assert after.revision >= now.revision
        before, routes = wanted_routes(now), wanted_routes(after)
        if routes != before:
            assert after.revision > now.revision
        if now.over:
            assert after == now
        if not after.over and routes.weight > before.weight:
            assert after.at == now.at + 1 or now.status == "pending"
        now = after


def _done(verb: str, now: Release, world: World) -> Release:
    if verb == "look":
        counted, skewed = seen(now, world.look(now))
        return decide(counted, skewed=skewed, at=MOMENT) if not now.over else now
    pulses = {"hard": Pulse(candidate=HARD["errors"]), "both": Pulse(candidate=HARD["errors"], champion=HARD["errors"])}
    if verb in pulses:
        return guard(now, pulses[verb], at=MOMENT)
    if verb == "promote":
        return promote(now, "asked", at=MOMENT)
    if verb == "back":
        return ended(now, "rolled_back", "asked", at=MOMENT)
    if verb == "approve":
        return approve(now, at=MOMENT)
    return {"start": start, "resume": resume}.get(verb, lambda one: pause(one, "asked"))(now)


@settings(deadline=None, max_examples=40)
@given(VERBS, st.integers(min_value=0, max_value=3))
def test_a_release_that_was_stored_and_read_goes_on_the_same(verbs: list[str], seed: int) -> None:
    one, other = World(seed=seed, rate=20), World(seed=seed, rate=20)
    here, stored = release(), release()
    for verb in verbs:
        here = _done(verb, here, one)
        stored = _done(verb, msgspec.convert(msgspec.json.decode(msgspec.json.encode(stored)), Release), other)
    assert msgspec.json.decode(msgspec.json.encode(here)) == msgspec.json.decode(msgspec.json.encode(stored))


def test_a_pause_uses_up_no_time_of_its_step() -> None:
    now = pause(start(release()), "over the weekend")
    for _ in range(1000):
        counted, skewed = seen(now, Look(seconds=10))
        now = decide(counted, skewed=skewed, at=MOMENT)
    now = decide(seen(resume(now), Look(seconds=10))[0], at=MOMENT)
    assert (now.status, now.seconds) == ("running", 10)


def test_an_exchange_of_no_arm_counts_for_nothing() -> None:
    now = msgspec.structs.replace(start(release()), at=1)
    one = World(seed=1).look(now).exchanges[0]
    strange = msgspec.structs.replace(one, assigned="", status=499)
    counted, skewed = seen(now, Look(seconds=10, exchanges=[strange, one]))
    assert (sum(counted.samples.values()), skewed) == (1, False)


def test_probes_of_health_are_no_data() -> None:
    now = msgspec.structs.replace(start(release()), at=1)
    probes = [msgspec.structs.replace(one, predicts=False) for one in World(seed=1).look(now).exchanges]
    counted, _ = seen(now, Look(seconds=10, exchanges=probes))
    assert sum(counted.samples.values()) == 0


def test_servers_that_were_slow_at_first_do_not_keep_a_release_from_its_evidence() -> None:
    world = World(seed=8, took={CHAMPION: 80.0, CANDIDATE: 80.0})
    now = start(release())
    first, _ = seen(now, world.look(now))
    assert first.memory["slow"] == pytest.approx(80_000 * 1.93, rel=0.1)
    world.took = {CHAMPION: 5.0, CANDIDATE: 5.0}
    over = first
    while not over.over:
        counted, skewed = seen(over, world.look(over))
        over = decide(counted, skewed=skewed, at=MOMENT)
    assert over.status == "promoted", over.reason
    assert over.memory["slow"] == pytest.approx(5_000 * 1.93, rel=0.2)
