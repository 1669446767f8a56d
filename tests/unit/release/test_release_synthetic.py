"""Synthetic requests, pairs and labels mean what the fields of a world say."""

import itertools
import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from releases import policy_with

from cumulant.flows.release.simulation.health import HealthWindow
from cumulant.flows.release.simulation.quality import Mirror, labelled_losses
from cumulant.flows.release.simulation.random_series import Days, Factors, Levels
from cumulant.flows.release.simulation.requests import ArrivedRequests, SimulatedCallers, SimulatedKeys
from cumulant.flows.release.simulation.run import simulate_evaluation
from cumulant.flows.release.simulation.schedule import LookInterval, WorldSchedule
from cumulant.flows.release.simulation.world import Quality, ReleaseWorld, WorldKeys
from cumulant.release.evidence.health import ArmHealth, RecentHealth
from cumulant.release.evidence.look import Requests
from cumulant.release.spec import CeilingSpec

STEPS = policy_with().steps
SHADOW, AB, CANARY_10, CANARY_50, CANARY_95 = range(5)


def world(**fields):
    return msgspec.convert(fields, ReleaseWorld)


def moment(place, at=0.0, *, within=0.0, answering=None, seconds=10.0):
    return LookInterval(at=at, seconds=seconds, step=STEPS[place], place=place, within=within, answering=answering)


def callers(found, seed=0, begins=0.0):
    return SimulatedCallers(found, WorldSchedule(found, STEPS, begins), np.random.default_rng(seed))


def looks(found, place, count=40, *, seed=0, **more):
    source = callers(found, seed)
    return [source.look(moment(place, 10.0 * look, within=10.0 * look, **more)) for look in range(count)]


def arms(arrived, name):
    """A column of all looks by arm: the champion's, the candidate's."""
    values = np.concatenate([getattr(one.requests, name) for one in arrived])
    candidate = np.concatenate([one.requests.candidate for one in arrived])
    return values[~candidate], values[candidate]


def near(share, wanted, count, errors=4.5):
    return abs(share - wanted) <= errors * math.sqrt(max(wanted * (1 - wanted), 1e-9) / count)


class TestTraffic:
    def test_requests_come_at_the_rate_and_by_the_weight(self):
        found = looks(world(traffic={"requests_per_second": 100}), CANARY_10)
        total = sum(len(one.requests) for one in found)
        champion, candidate = arms(found, "failed")
        assert abs(total - 40_000) < 4.5 * math.sqrt(40_000)
        assert near(len(candidate) / total, 0.1, total)
        assert all(((one.seconds >= 0) & (one.seconds < 10)).all() for one in found)
        assert not np.concatenate([one.requests.key for one in found]).any()
        assert len(champion) + len(candidate) == total

    def test_the_profile_follows_the_hours_from_the_begin(self):
        profile = [0.0] * 24
        profile[5] = 2.0
        source = callers(world(traffic={"requests_per_second": 50, "profile": profile}), begins=4.5 * 3600)
        assert len(source.look(moment(AB, 0.0)).requests) == 0
        assert abs(len(source.look(moment(AB, 1800.0)).requests) - 1000) < 150
        assert len(source.look(moment(AB, 5400.0)).requests) == 0

    def test_shadow_gives_the_candidate_no_caller(self):
        assert not any(one.requests.candidate.any() for one in looks(world(keys={}), SHADOW, 3))


class TestKeys:
    def test_a_key_keeps_its_arm_and_only_goes_over_when_the_weight_grows(self):
        source = callers(world(keys={"count": 500}))
        arm = [{}, {}, {}]
        for stage, place in enumerate((CANARY_10, CANARY_50, CANARY_95)):
            for look in range(20):
                one = source.look(moment(place, 10.0 * look)).requests
                for key, candidate in zip(one.key.tolist(), one.candidate.tolist(), strict=True):
                    assert arm[stage].setdefault(key, candidate) == candidate
        assert all(arm[later][key] for early, later in ((0, 1), (1, 2)) for key, mine in arm[early].items() if mine)
        for found, weight in zip(arm, (0.1, 0.5, 0.95), strict=True):
            assert len(found) == 500
            assert near(sum(found.values()) / 500, weight, 500)

    def test_activity_is_of_zipf_and_heavy_keys_have_their_share(self):
        keys = msgspec.convert({"count": 50, "zipf": 1.5, "heavy": [{"share": 0.2}, {"share": 0.1}]}, WorldKeys)
        table = SimulatedKeys(keys, np.random.default_rng(0))
        counts = Counter(table.draw(np.random.default_rng(1), 100_000).tolist())
        weights = [rank**-1.5 for rank in range(1, 51)]
        wanted = [0.2, 0.1, *(0.7 * one / sum(weights) for one in weights)]
        assert all(near(counts[key] / 100_000, share, 100_000) for key, share in enumerate(wanted))

    def test_heavy_keys_fail_and_take_long_in_whichever_arm(self):
        fields = {"keys": {"count": 1000, "heavy": [{"share": 0.2, "errors": 0.3, "latency_ratio": 4}]}}
        seen = set()
        for seed in range(8):
            found = looks(world(**fields), CANARY_50, 10, seed=seed)
            key = np.concatenate([one.requests.key for one in found])
            names, counts = np.unique(key, return_counts=True)
            mine = key == names[counts.argmax()]
            failed, micros, candidate = (
                np.concatenate([getattr(one.requests, name) for one in found])
                for name in ("failed", "micros", "candidate")
            )
            assert near(failed[mine].mean(), 0.3, mine.sum())
            assert near(failed[~mine].mean(), 0.005, (~mine).sum())
            assert np.median(micros[mine]) / np.median(micros[~mine]) == pytest.approx(4, rel=0.1)
            seen.add(bool(candidate[mine].all()))
            assert candidate[mine].all() or not candidate[mine].any()
        assert seen == {True, False}


class TestErrors:
    @pytest.mark.parametrize(
        ("stage", "broken"),
        [
            ("canary 95%", {CANARY_95}),
            ("canary", {CANARY_10, CANARY_50, CANARY_95}),
            ("ab", {AB, CANARY_10, CANARY_50, CANARY_95}),
            (None, {AB, CANARY_10, CANARY_50, CANARY_95}),
        ],
    )
    def test_the_candidate_fails_more_from_its_stage_on(self, stage, broken):
        found = world(errors={"champion": 0.02, "candidate": 0.2, "from_stage": stage})
        for place in (AB, CANARY_10, CANARY_50, CANARY_95):
            champion, candidate = arms(looks(found, place, 10), "failed")
            assert near(champion.mean(), 0.02, len(champion))
            assert near(candidate.mean(), 0.2 if place in broken else 0.02, len(candidate))

    def test_no_failure_is_a_time_out(self):
        assert not any(one.requests.timed_out.any() for one in looks(world(errors={"champion": 0.5}), AB, 2))

    def test_an_outage_is_of_one_arm_in_one_stage_and_then_over(self):
        found = world(outages=[{"arm": "champion", "stage": "canary 50%", "seconds": 25, "rate": 0.4}])
        for place in (AB, CANARY_50):
            arrived = looks(found, place, 6)
            within = np.concatenate([10 * look + one.seconds for look, one in enumerate(arrived)])
            candidate = np.concatenate([one.requests.candidate for one in arrived])
            failed = np.concatenate([one.requests.failed for one in arrived])
            out = ~candidate & (within < 25) & (place == CANARY_50)
            assert near(failed[~out].mean(), 0.005, (~out).sum())
            assert place == AB or near(failed[out].mean(), 0.4, out.sum())

    def test_a_stage_without_a_step_means_its_first_step(self):
        found = world(outages=[{"arm": "candidate", "stage": "canary", "seconds": 1000, "rate": 1}])
        assert arms(looks(found, CANARY_10, 1), "failed")[1].all()
        assert not arms(looks(found, CANARY_50, 1), "failed")[1].all()

    def test_a_cold_start_is_over_after_its_seconds(self):
        found = world(cold_start={"seconds": 60, "latency_ratio": 3, "errors": 0.2})
        for answering, cold in ((0.0, True), (50.0, True), (60.0, False), (None, False)):
            failed, micros = [], []
            for seed in range(10):
                arrived = callers(found, seed).look(moment(CANARY_50, answering=answering))
                failed.append(arms([arrived], "failed"))
                micros.append(arms([arrived], "micros"))
            champion, candidate = (np.concatenate(one) for one in zip(*failed, strict=True))
            fast, slow = (np.median(np.concatenate(one)) for one in zip(*micros, strict=True))
            assert near(champion.mean(), 0.005, len(champion))
            assert near(candidate.mean(), 0.2 if cold else 0.005, len(candidate))
            assert slow / fast == pytest.approx(3 if cold else 1, rel=0.06)

    @pytest.mark.parametrize("of", ["own", "shared"])
    def test_bursts_are_constant_over_their_seconds_and_of_the_arms_they_say(self, of):
        found = world(
            traffic={"requests_per_second": 2000}, errors={"champion": 0.05}, bursts={"of": of, "cv": 1, "seconds": 30}
        )
        source = callers(found)
        arrived = [source.look(moment(CANARY_50, 10.0 * look)) for look in range(60)]
        rates = np.array([[column.mean() for column in arms([one], "failed")] for one in arrived])
        for arm in (0, 1):
            factor = np.array([source.factors[arm].means(np.array([10.0 * k, 10.0 * (k + 1)]))[0] for k in range(60)])
            assert np.abs(rates[:, arm] - np.minimum(0.05 * factor, 1)).max() < 0.02
        assert (np.corrcoef(rates.T)[0, 1] > 0.9) == (of == "shared")

    def test_lost_requests_are_the_candidates_from_their_stage_on(self):
        found = world(split={"lost_share": 0.3, "from_stage": "canary 50%"})
        for place, kept in ((CANARY_10, 0.1), (CANARY_50, 0.35)):
            champion, candidate = arms(looks(found, place), "failed")
            assert len(candidate) / 80_000 == pytest.approx(kept, rel=0.05)
            assert len(champion) / 80_000 == pytest.approx(0.9 if place == CANARY_10 else 0.5, rel=0.05)


class TestSeries:
    def test_factors_have_mean_one_and_their_variation(self):
        factors = Factors(np.random.default_rng(0), cv=1.5, seconds=10, before=100)
        values = factors.at(np.arange(0, 400_000, 10.0))
        assert values.mean() == pytest.approx(1, abs=0.05)
        assert values.std() == pytest.approx(1.5, rel=0.05)

    def test_the_mean_of_factors_is_that_of_many_moments(self):
        factors = Factors(np.random.default_rng(0), cv=1, seconds=7, before=100)
        edges = np.array([-100.0, -90, -13.5, 0, 200])
        slow = [
            factors.at(np.linspace(low, high, 20_001)[:-1] + (high - low) / 40_000).mean()
            for low, high in itertools.pairwise(edges)
        ]
        assert factors.means(edges) == pytest.approx(slow, rel=1e-3)

    def test_levels_have_their_deviation_and_autocorrelation_across_calls(self):
        levels = Levels(np.random.default_rng(0), keep=0.9, deviation=0.2)
        values = np.concatenate([levels.next(1 + part % 7) for part in range(20_000)])
        assert values.std() == pytest.approx(0.2, rel=0.05)
        assert np.corrcoef(values[1:], values[:-1])[0, 1] == pytest.approx(0.9, abs=0.01)
        assert not Levels(np.random.default_rng(0), keep=0.0, deviation=0.2).next(5).any()

    def test_a_day_has_one_effect(self):
        days = Days(np.random.default_rng(0), deviation=2.0)
        values = [days.effect(day) for day in range(-1000, 1000)]
        assert np.std(values) == pytest.approx(2, rel=0.1)
        assert days.effect(-1000) == values[0]


class TestLatency:
    def test_it_is_log_normal_with_the_ratio(self):
        found = looks(world(latency={"median_ms": 30, "sigma": 0.4, "ratio": 1.5}), CANARY_50)
        champion, candidate = (np.log(one) for one in arms(found, "micros"))
        assert np.exp(np.median(champion)) == pytest.approx(30_000, rel=0.02)
        assert np.exp(np.median(candidate) - np.median(champion)) == pytest.approx(1.5, rel=0.02)
        assert champion.std() == pytest.approx(0.4, rel=0.02)

    def test_with_levels_the_whole_spread_stays(self):
        found = looks(world(latency={"sigma": 0.4, "ar1": 0.5}), CANARY_50, 400)
        levels = np.array([[np.log(column).mean() for column in arms([one], "micros")] for one in found])
        assert np.log(arms(found, "micros")[0]).std() == pytest.approx(0.4, rel=0.03)
        assert levels.std(0) == pytest.approx([0.08, 0.08], rel=0.15)
        assert abs(np.corrcoef(levels.T)[0, 1]) < 0.25


class TestHistory:
    def test_it_is_like_looks_of_the_champion(self):
        fields = {
            "traffic": {"requests_per_second": 40},
            "keys": {"count": 500, "heavy": [{"share": 0.2, "errors": 0.1, "latency_ratio": 2}]},
            "errors": {"champion": 0.02, "candidate": 0.5},
            "latency": {"ar1": 0.5},
        }
        source = callers(world(**fields))
        history = source.history(look=10, quantile=0.9)
        assert len(history) == 8640
        rates = history.bad.sum(0) / history.requests.sum()
        assert rates == pytest.approx([0.2 * 0.1 + 0.8 * 0.02, 0, 0.1], rel=0.03)
        shadow = [source.look(moment(SHADOW, 10.0 * look)).requests for look in range(300)]
        micros = np.concatenate([one.micros for one in shadow])
        assert (micros > history.slow_us).mean() == pytest.approx(0.1, abs=0.015)
        assert np.concatenate([one.failed for one in shadow]).mean() == pytest.approx(rates[0], rel=0.1)

    def test_it_has_the_bursts_that_go_on_in_the_release(self):
        source = callers(world(errors={"champion": 0.05}, bursts={"cv": 1, "seconds": 600}))
        history = source.history(look=10, quantile=0.95)
        rates = history.bad[:, 0] / history.requests
        factor = source.factors[0].means((np.arange(8641) - 8640) * 10.0)
        assert np.corrcoef(rates, factor)[0, 1] > 0.95

    def test_hours_without_requests_are_no_looks(self):
        source = callers(world(traffic={"profile": [0.0] * 12 + [1.0] * 12}))
        assert len(source.history(look=60, quantile=0.95)) == 720


class TestPairs:
    def test_answers_differ_as_said(self):
        found = world(scores={"disagreement": 0.2, "shift": 0.1})
        pairs = Mirror(found, WorldSchedule(found, STEPS, 0), np.random.default_rng(0)).pairs(20_000)
        assert pairs.differs.mean() == pytest.approx(0.2, abs=0.01)
        assert (pairs.candidate - pairs.champion).mean() == pytest.approx(0.1, abs=0.002)

    def test_losses_come_with_their_labels(self):
        found = world(quality={"label_delay": "1h"})
        mirror = Mirror(found, WorldSchedule(found, STEPS, 0), np.random.default_rng(0))
        mirror.record_mirrored(10, 100.0)
        mirror.record_mirrored(5, 200.0)
        assert [len(mirror.losses(until)) for until in (3699.0, 3700.0, 3700.0, 5000.0)] == [0, 10, 0, 5]
        none = world(quality=None)
        mirror = Mirror(none, WorldSchedule(none, STEPS, 0), np.random.default_rng(0))
        mirror.record_mirrored(10, 0.0)
        assert len(mirror.losses(1e9)) == 0

    @pytest.mark.parametrize("rare", [None, {"share": 0.01, "size": 2.0}])
    def test_the_mean_difference_is_as_said_with_rare_losses_too(self, rare):
        quality = msgspec.convert({"difference": 0.05, "loss_sd": 0.1, "rare_loss": rare}, Quality)
        losses = labelled_losses(quality, 200_000, shift=0.2, effect=0.0, rng=np.random.default_rng(0))
        difference = losses.candidate - losses.champion
        assert difference.mean() == pytest.approx(0.05, abs=0.005)
        assert (difference > 1).mean() == pytest.approx(0.01 if rare else 0.0, abs=0.002)
        assert losses.champion.mean() == pytest.approx(0.1, abs=0.005)

    def test_rows_of_a_day_share_its_effect(self):
        found = world(quality={"day_sd": 1.0, "loss_sd": 0.01})
        mirror = Mirror(found, WorldSchedule(found, STEPS, 86_000.0), np.random.default_rng(0))
        for at, day in ((100.0, 0), (500.0, 1)):
            mirror.record_mirrored(50, at)
            losses = mirror.losses(at)
            assert (losses.candidate - losses.champion).mean() == pytest.approx(mirror.days.effect(day), abs=0.01)

    @pytest.mark.parametrize(("labelled", "rows", "mean"), [("positives", 0.1, -0.36), ("high_scores", 0.1, -0.2)])
    def test_selected_labels_are_few_and_biased_by_a_shift_of_scores(self, labelled, rows, mean):
        quality = msgspec.convert({"labelled": labelled, "loss_sd": 0.1}, Quality)
        losses = labelled_losses(quality, 100_000, shift=0.2, effect=0.0, rng=np.random.default_rng(0))
        assert len(losses) / 100_000 == pytest.approx(rows, abs=0.005)
        assert (losses.candidate - losses.champion).mean() == pytest.approx(mean, abs=0.01)


class TestPast:
    def past(self, **fields):
        found = world(**fields)
        mirror = Mirror(found, WorldSchedule(found, STEPS, 0.0), np.random.default_rng(0))
        return simulate_evaluation(found, mirror, rng=np.random.default_rng(1)), mirror

    def test_it_is_of_the_same_world(self):
        found, mirror = self.past(
            quality={"difference": 0.02, "day_sd": 0.5, "loss_sd": 0.1}, scores={"disagreement": 0.3, "shift": 0.1}
        )
        assert (found.rows, len(found.days)) == (28_000, 28)
        effects = [mirror.days.effect(day) for day in range(-28, 0)]
        assert [one.difference - 0.02 for one in found.days] == pytest.approx(effects, abs=0.02)
        assert found.disagreement == pytest.approx(0.3, abs=0.02)
        assert found.shift == pytest.approx(0.1, abs=0.01)

    def test_selected_labels_are_of_those_rows(self):
        found, _ = self.past(quality={"labelled": "high_scores"}, scores={"shift": 0.1})
        assert found.rows == pytest.approx(2800, abs=250)
        assert found.difference == pytest.approx(0.1 * (0.6 * -1.8 + 0.4 * 0.2), abs=0.02)

    @pytest.mark.parametrize("quality", [None, {"labelled": "positives"}])
    def test_without_labels_of_several_classes_there_is_none(self, quality):
        assert self.past(quality=quality)[0] is None


class TestHealthWindow:
    @pytest.mark.parametrize("keys", [40, 1])
    @pytest.mark.parametrize("seconds", [10.0, 2.5])
    def test_they_are_those_of_a_slow_count(self, keys, seconds):
        rng = np.random.default_rng(3)
        window, kept = HealthWindow(policy_with(ceilings=CeilingSpec(requests=10)).ceilings), []
        for look in range(6):
            count = 150
            requests = Requests(
                candidate=rng.random(count) < 0.4,
                failed=rng.random(count) < 0.3,
                timed_out=np.zeros(count, dtype=np.bool_),
                micros=np.ones(count),
                key=rng.integers(0, keys, count).astype(np.uint64),
            )
            arrived = ArrivedRequests(requests, rng.random(count) * seconds)
            found = dict(window.of(arrived, seconds))
            kept += list(
                zip(
                    (arrived.seconds + seconds * look).tolist(),
                    requests.candidate.tolist(),
                    requests.failed.tolist(),
                    requests.key.tolist(),
                    strict=True,
                )
            )
            for second in range(1, int(seconds) + 1):
                slow, failures = slow_health(kept, seconds * look + second)
                assert (second in found) == (failures > 2)
                assert second not in found or found[second] == slow


def slow_health(requests, now):
    """The health of all requests of the last five seconds, a key by its last one; and the candidate's failed requests."""
    recent = sorted(one for one in requests if now - 5 < one[0] <= now)
    arms = {}
    for arm in (False, True):
        last = {(key or ("none", time)): failed for time, candidate, failed, key in recent if candidate == arm}
        arms[arm] = ArmHealth(requests=len(last), failures=sum(last.values()))
    return RecentHealth(champion=arms[False], candidate=arms[True]), sum(c and f for _, c, f, _ in recent)
