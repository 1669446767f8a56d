"""One simulated release, driven in the controller's order by the code that decides real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np

from cumulant.core.traffic import Arm
from cumulant.flows.release.simulation.health import HealthWindow
from cumulant.flows.release.simulation.log_replay import LoggedCallers, LoggedRequests
from cumulant.flows.release.simulation.quality import Mirror, hour_of, labelled_losses
from cumulant.flows.release.simulation.random_series import Floats
from cumulant.flows.release.simulation.requests import ArrivedRequests, SimulatedCallers
from cumulant.flows.release.simulation.result import End, SimulatedRelease
from cumulant.flows.release.simulation.schedule import DAY, LookInterval, WorldSchedule
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.flows.release.start import evidence_blocks
from cumulant.flows.release.start.new_release import with_evaluation
from cumulant.release.admission import refusal, with_margins
from cumulant.release.decide import act_on_failure, approve, build_failure_reference, decide, end_release, start
from cumulant.release.evidence.accumulate import count_look, with_history
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.health import HardFailure, RecentHealth, find_hard_failure
from cumulant.release.evidence.look import Look, LossPairs, ScorePairs
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_records import PairedEvaluation
from cumulant.release.paired.paired_rows import PairedRows, paired_evaluation
from cumulant.release.policy import ReleasePolicy
from cumulant.release.state import Release
from cumulant.release.steps import ReleaseStep

#: days of labelled rows that both versions score, and rows of one day at most
DAYS, ROWS = 28, 1000
#: loss of the best constant answer over the champion's
_BASELINE = 1.5
_MICROS = 1_000_000

#: a release that is not over by then is cut off
REQUESTS, LOOKS = 20_000_000, 70_000
_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
_MODEL = "simulated"


class RequestSource(Protocol):
    """Where requests come from: a world's own callers, or a log."""

    def look(self, moment: LookInterval) -> ArrivedRequests:
        """The requests of one look that reached the log."""
        ...

    def candidate_rate(self, moment: LookInterval) -> float:
        """Share of mirrored requests that the candidate fails."""
        ...

    def history(self, *, look: float, quantile: float) -> ChampionHistory:
        """The champion's requests before the release."""
        ...


def simulate_release(
    world: ReleaseWorld, policy: ReleasePolicy, seed: np.random.SeedSequence, log: LoggedRequests | None = None
) -> SimulatedRelease:
    """How one release of the world ends under the `policy`; with a log its requests are drawn from that."""
    # A seed counts what was spawned of it: a copy gives the same release each time.
    own = np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)
    return _Run(world, policy, np.random.default_rng(own), log).simulate()


class _Run:
    def __init__(
        self, world: ReleaseWorld, policy: ReleasePolicy, rng: np.random.Generator, log: LoggedRequests | None
    ) -> None:
        self._world, self._policy = world, policy
        self._look = policy.look
        streams = rng.spawn(4)
        self._scene = WorldSchedule(world, policy.steps, draw_begin(world, streams[0]))
        self._source: RequestSource = (
            SimulatedCallers(world, self._scene, streams[1])
            if log is None
            else LoggedCallers(log, world, self._scene, streams[1])
        )
        self._mirror = Mirror(world, self._scene, streams[2])
        self._rng = streams[3]
        self._health = HealthWindow(self._policy.ceilings)
        self._time = self._entered = 0.0
        self._answering: float | None = None
        self._requests = 0

    def simulate(self) -> SimulatedRelease:
        past = (
            simulate_evaluation(self._world, self._mirror, rng=self._rng)
            if self._policy.evaluation is not None
            else None
        )
        why = None if past is None else refusal(self._policy, past)
        if why is not None:
            text = f"did not begin, as {why.metric} is refused: {why.text}"
            return SimulatedRelease(end="rolled_back", seconds=0.0, stage="start", reason=text, requests=0)
        release, last = self._start(past), longest_seconds(self._world, self._look)
        split_is_broken = False
        while not release.over:
            before = release
            release, split_is_broken = self._after_look(release)
            if release.at != before.at:
                self._entered, self._health = self._time, HealthWindow(self._policy.ceilings)
            if not release.over and self._time >= last:
                text = f"cut off, as it was not over after {self._time / 3600:g} hours"
                release = end_release(release, "inconclusive", text, at=self._now())
        end: End = "broken_split" if split_is_broken else _end(release)
        return SimulatedRelease(
            end=end,
            seconds=self._time,
            stage=release.step.label,
            reason=release.reason,
            requests=self._requests,
        )

    def _start(self, past: PairedEvaluation | None) -> Release:
        policy = with_margins(self._policy, past)
        latency = metrics(policy)["latency"]
        release = Release(
            id="simulated",
            model=_MODEL,
            champion=Arm(name="champion", version="1", endpoints=("http://champion",)),
            candidate=Arm(name="candidate", version="2", endpoints=("http://candidate",)),
            policy=policy,
            looks_a_block=evidence_blocks.looks_a_block(policy),
            looks_by_metric=evidence_blocks.looks_without_pairs(policy),
            begun=_BEGUN,
        )
        history = self._source.history(look=self._look, quantile=latency.quantile)
        return start(with_history(with_evaluation(release, past), history))

    def _after_look(self, release: Release) -> tuple[Release, bool]:
        """The release after one look, and whether it ended because of a broken split."""
        moment = self._moment(release.step, release.at)
        arrived = self._source.look(moment)
        self._requests += len(arrived.requests)
        health = RecentHealth()
        for seconds, recent in self._health.of(arrived, self._look):
            release = act_on_failure(release, self._failure(release, recent), at=self._now(seconds))
            if release.over:
                self._time += seconds
                return release, False
            health = recent if seconds >= self._look else RecentHealth()
        self._time += self._look
        release, skewed = count_look(release, self._build_look(moment, arrived))
        failing = self._failure(release, health) is not None
        release = decide(release, skewed=skewed, failing=failing, at=self._now())
        if release.status == "awaiting_approval":  # an approver agrees at once
            release = approve(release, at=self._now())
        return release, skewed and release.over

    def _failure(self, release: Release, health: RecentHealth) -> HardFailure | None:
        return find_hard_failure(health, release.policy.ceilings, build_failure_reference(release))

    def _moment(self, step: ReleaseStep, place: int) -> LookInterval:
        if step.weight and self._answering is None:
            self._answering = self._time
        return LookInterval(
            at=self._time,
            seconds=self._look,
            step=step,
            place=place,
            within=self._time - self._entered,
            answering=None if self._answering is None else self._time - self._answering,
        )

    def _build_look(self, moment: LookInterval, arrived: ArrivedRequests) -> Look:
        """The look with its pairs: of the champion's answered requests, those that the candidate answered too."""
        requests, step = arrived.requests, moment.step
        pairs, losses = ScorePairs(), LossPairs()
        if step.mirror:
            answered = int((~requests.candidate & ~requests.failed).sum())
            chance = step.mirror / 100 * (1 - self._source.candidate_rate(moment))
            count = int(self._rng.binomial(answered, chance))
            pairs = self._mirror.pairs(count)
            self._mirror.record_mirrored(count, moment.at + moment.seconds)
        losses = self._mirror.losses(self._time)
        return Look(
            seconds=self._look, hour=hour_of(moment.at + moment.seconds), requests=requests, pairs=pairs, losses=losses
        )

    def _now(self, seconds: float = 0.0) -> datetime:
        return _BEGUN + timedelta(seconds=self._time + seconds)


def draw_begin(world: ReleaseWorld, rng: np.random.Generator) -> float:
    """Seconds after midnight at which a release begins."""
    hours = world.traffic.release_hours
    if isinstance(hours, list):
        return float(rng.choice(hours)) * 3600 + float(rng.uniform(0, 3600))
    return float(rng.uniform(0, DAY))


def longest_seconds(world: ReleaseWorld, look: float) -> float:
    hours = world.traffic.release_hours
    if hours is not None and not isinstance(hours, list):
        return hours * 3600
    profile = world.traffic.profile
    mean = world.traffic.requests_per_second * (float(np.mean(profile)) if profile is not None else 1.0)
    return min(REQUESTS / mean, LOOKS * look)


def _end(release: Release) -> End:
    if release.status == "promoted":
        return "promoted"
    return "rolled_back" if release.status == "rolled_back" else "inconclusive"


def simulate_evaluation(
    world: ReleaseWorld, mirror: Mirror, *, days: int = DAYS, rng: np.random.Generator
) -> PairedEvaluation | None:
    """Both versions on labelled rows of the days before the release; None where no row has a label."""
    quality, scores = world.quality, world.scores
    if quality is None or quality.labelled == "positives":
        return None
    a_day = min(ROWS, int(world.traffic.requests_per_second * DAY))
    if not a_day:
        return None
    columns: list[tuple[Floats, Floats, Floats]] = []
    for day in range(-days, 0):
        effect = mirror.days.effect(day)
        losses = labelled_losses(quality, a_day, shift=scores.shift, effect=effect, rng=rng)
        columns.append((losses.champion, losses.candidate, np.full(len(losses), float(day))))
    champion, candidate, day_of = (np.concatenate(column) for column in zip(*columns, strict=True))
    pairs = mirror.pairs(len(champion))
    return paired_evaluation(
        PairedRows(
            champion=pairs.champion,
            candidate=pairs.candidate,
            champion_loss=champion,
            candidate_loss=candidate,
            baseline_loss=_BASELINE * quality.loss,
            loss="brier",
            differs=pairs.differs,
            at=((day_of + days) * DAY * _MICROS).astype(np.int64),
        )
    )
