"""Simulated releases go through the code that decides, and give the same whatever runs them."""

import json

import msgspec
import numpy as np
import pytest
from scipy import stats

from cumulant.core.errors import UsageError
from cumulant.core.traffic import Exchange
from cumulant.flows.release.simulation.log_replay import LoggedCallers, read_logged_requests
from cumulant.flows.release.simulation.result import SimulatedRelease, share_of, summarize_releases, without_numbers
from cumulant.flows.release.simulation.run import draw_begin, longest_seconds, simulate_release
from cumulant.flows.release.simulation.schedule import LookInterval, WorldSchedule
from cumulant.flows.release.simulation.simulate import simulate
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.flows.release.simulation.world_loading import policy_of
from cumulant.release.spec import ReleaseSpec

QUICK = {
    # That an arm without any time-out has few of them takes more looks than these steps have.
    "metrics": {"timeouts": {"required": False}},
    "stages": {
        "shadow": None,
        "ab": {"at_least": "1m", "at_most": "4m", "samples": 200},
        "canary": {"weights": ["10%", "50%"], "at_least": "1m", "soak": "2m", "at_most": "6m", "samples": 200},
    },
}


def world(**fields):
    """Without labels: of so few pairs as these steps have, a mean may be beyond its margin by chance."""
    return msgspec.convert(
        {"policy": QUICK, "traffic": {"requests_per_second": 100}, "quality": None, **fields}, ReleaseWorld
    )


def ends(found, count=4, seed=0):
    spec = policy_of(found, ReleaseSpec())
    return [simulate_release(found, spec, one) for one in np.random.SeedSequence(seed).spawn(count)]


def test_a_sound_candidate_goes_through_all_steps():
    found = ends(world(errors={"champion": 0.001}), 3)
    assert {one.end for one in found} == {"promoted"}
    assert {one.stage for one in found} == {"canary 50%"}
    assert all(240 <= one.seconds <= 960 and one.requests > 20_000 for one in found)


def test_plain_harm_is_rolled_back_within_seconds_by_the_quick_check():
    found = ends(world(errors={"champion": 0.001, "candidate": 0.9}))
    assert {one.end for one in found} == {"rolled_back"}
    assert all(one.seconds < 30 for one in found)


def test_harm_of_a_later_step_is_rolled_back_there():
    found = ends(world(errors={"champion": 0.002, "candidate": 0.3, "from_stage": "canary 50%"}))
    assert [(one.end, one.stage) for one in found] == [("rolled_back", "canary 50%")] * 4


def test_a_split_that_stops_is_broken_and_no_promotion():
    found = ends(world(errors={"champion": 0.001}, split={"lost_share": 1.0, "from_stage": "canary 50%"}))
    assert {one.end for one in found} == {"broken_split"}


def test_a_candidate_that_the_labelled_past_shows_to_be_worse_does_not_begin():
    (one,) = ends(world(quality={"difference": 0.05}), 1)
    assert (one.end, one.stage, one.requests) == ("rolled_back", "start", 0)
    assert without_numbers(one.reason) == "did not begin, as quality is refused"
    without = world(quality={"difference": 0.05}, policy={**QUICK, "evaluation": None}, errors={"champion": 0.001})
    assert ends(without, 1)[0].stage != "start"


def test_an_approval_is_given_at_once():
    found = world(errors={"champion": 0.001}, policy={**QUICK, "approval": {"before": "canary", "by": ["*"]}})
    assert ends(found, 1)[0].end == "promoted"


def test_a_release_that_is_not_over_in_time_is_cut_off():
    found = world(traffic={"requests_per_second": 10, "release_hours": 0.05})
    (one,) = ends(found, 1)
    assert (one.end, one.seconds) == ("inconclusive", 180)
    assert one.reason == "cut off, as it was not over after 0.05 hours"


def test_the_longest_time_and_the_first_hour():
    rng = np.random.default_rng(0)
    assert longest_seconds(world(traffic={"requests_per_second": 200}), 10) == 100_000
    assert longest_seconds(world(traffic={"requests_per_second": 0.2}), 10) == 700_000
    assert longest_seconds(world(traffic={"release_hours": 3}), 10) == 10_800
    hours = [draw_begin(world(traffic={"release_hours": [5, 9]}), rng) // 3600 for _ in range(50)]
    assert set(hours) == {5, 9}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_releases_in_any_number_of_processes():
    found = world(errors={"champion": 0.02, "candidate": 0.2}, traffic={"requests_per_second": 20})
    alone = simulate(found, ReleaseSpec(), releases=4, seed=3, processes=1)
    assert simulate(found, ReleaseSpec(), releases=4, seed=3, processes=2) == alone
    assert simulate(found, ReleaseSpec(), releases=4, seed=4, processes=1) != alone


@pytest.mark.parametrize("releases", [0, 10**6])
def test_a_number_of_releases_that_cannot_be(releases):
    with pytest.raises(UsageError, match="cannot be simulated"):
        simulate(world(), ReleaseSpec(), releases=releases)


class TestResult:
    @pytest.mark.parametrize(("count", "whole"), [(0, 20), (1, 20), (7, 40), (20, 20)])
    def test_intervals_are_those_of_scipy(self, count, whole):
        found, exact = share_of(count, whole), stats.binomtest(count, whole).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
        assert found.share == count / whole

    def test_counts_times_reasons_and_stages(self):
        rows = [
            *(("promoted", 100.0 * n, "canary 95%", "shown to be within the margin: errors") for n in range(1, 11)),
            ("rolled_back", 50.0, "ab 10%", "errors became worse: 2.00% against the champion's 0.50%"),
            ("rolled_back", 70.0, "ab 10%", "the candidate failed 12 of its last 20 requests"),
            ("broken_split", 10.0, "canary 50%", "the split is broken"),
        ]
        ended = [
            SimulatedRelease(end=end, seconds=seconds, stage=stage, reason=reason, requests=5)
            for end, seconds, stage, reason in rows
        ]
        found = summarize_releases(ended, world="w", expect="sound", seed=1)
        assert (found.releases, found.promoted.count, found.rolled_back.count) == (13, 10, 2)
        assert (found.inconclusive.count, found.broken_split.count, found.requests) == (0, 1, 65)
        assert found.wrong == found.rolled_back
        assert found.seconds_by_end["promoted"].median == 550
        assert found.seconds_by_end["promoted"].p90 == 1000
        assert found.seconds_by_end["inconclusive"].median is None
        assert found.by_stage["rolled_back"] == {"ab 10%": 2}
        assert found.by_reason["rolled_back"] == {
            "errors became worse": 1,
            "the candidate failed N of its last N requests": 1,
        }
        assert summarize_releases(ended, world="w", expect="broken", seed=1).wrong == found.promoted
        assert summarize_releases(ended, world="w", expect="any", seed=1).wrong is None
        json.dumps(msgspec.to_builtins(found), allow_nan=False)

    def test_reasons_lose_their_numbers(self):
        assert without_numbers("errors rose (difference 0.1% to 2%)") == "errors rose"
        assert without_numbers("failed 1,200 of 3e+04") == "failed N of N"


def exchange(second, number, *, status=200, arm="champion", key="", model="m"):
    return Exchange(
        request=f"{second}-{number}",
        time=int((second + number / 10) * 1_000_000),
        model=model,
        assigned=arm,
        served=arm,
        status=status,
        duration_us=1000 + 100 * (second % 7),
        key=key,
    )


def record(seconds=1500, bad=range(600, 660)):
    """Ten requests a second of 50 keys, all of which fail in the bad seconds."""
    return [
        exchange(second, number, status=503 if second in bad else 200, key=f"k{(second * 10 + number) % 50}")
        for second in range(seconds)
        for number in range(10)
    ]


class TestLog:
    def test_it_holds_the_champions_requests_in_order(self):
        rows = [*record(), exchange(3, 0, arm="candidate"), exchange(3, 0, model="other")]
        found = read_logged_requests(reversed(rows), "m")
        assert len(found.requests) == 15_000
        assert (np.diff(found.seconds) >= 0).all()
        assert found.requests.failed.mean() == pytest.approx(60 / 1500)

    def test_a_log_that_is_too_short_is_refused(self):
        with pytest.raises(UsageError, match="holds 100 s"):
            read_logged_requests(record(100), "m")
        with pytest.raises(UsageError, match="holds 0 s"):
            read_logged_requests([], "m")

    def test_both_arms_are_drawn_in_blocks_and_keys_stick(self):
        found, rows = world(), read_logged_requests(record(), "m")
        every = policy_of(found, ReleaseSpec()).steps
        source = LoggedCallers(rows, found, WorldSchedule(found, every, 0.0), np.random.default_rng(0))
        arm, shares = {}, []
        for look in range(200):
            moment = LookInterval(at=10.0 * look, seconds=10.0, step=every[-1], place=2, within=0.0, answering=0.0)
            one = source.look(moment).requests
            for key, mine in zip(one.key.tolist(), one.candidate.tolist(), strict=True):
                assert arm.setdefault(key, mine) == mine
            shares += [one.failed[one.candidate == mine].mean() for mine in (False, True)]
        # An arm's requests of one look are neighbours in the log: nearly always all of them fail, or none.
        assert sum(0 < share < 1 for share in shares) <= 12
        assert sum(share == 1 for share in shares) >= 1
        assert 10 <= sum(arm.values()) <= 40
        history = source.history(look=10, quantile=0.95)
        assert (len(history), history.requests.sum(), history.bad[:, 0].sum()) == (150, 15_000, 600)

    def test_what_the_world_says_of_the_candidate_is_added(self):
        rows = read_logged_requests(record(bad=()), "m")
        found = world(errors={"champion": 0.01, "candidate": 0.31}, latency={"ratio": 2.0})
        every = policy_of(found, ReleaseSpec()).steps
        source = LoggedCallers(rows, found, WorldSchedule(found, every, 0.0), np.random.default_rng(0))
        moment = LookInterval(at=0.0, seconds=300.0, step=every[-1], place=2, within=0.0, answering=0.0)
        one = source.look(moment).requests
        assert not one.failed[~one.candidate].any()
        assert one.failed[one.candidate].mean() == pytest.approx(0.3, abs=0.05)
        assert one.micros[one.candidate].min() >= 2000 > one.micros[~one.candidate].max()

    def test_releases_on_a_log_end(self):
        found = simulate(
            world(), ReleaseSpec(), log=read_logged_requests(record(bad=()), "m"), releases=2, seed=1, processes=1
        )
        assert found.rolled_back.count == 0
