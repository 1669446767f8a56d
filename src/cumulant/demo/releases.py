"""The demo's releases, one after the other, on real processes: what the controller decided, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import cumulant
from cumulant.core.errors import StepFailedError
from cumulant.core.progress import Progress
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.demo.callers import DemoCallers
from cumulant.demo.candidates import faulty_server, train_good, train_leaked
from cumulant.demo.data_fault import Fault
from cumulant.demo.report import ReleaseReport, Stage

if TYPE_CHECKING:
    from cumulant.api.results import PassedStep, Release

T = TypeVar("T")

#: v2 learns from what was known then, and May is what it is released over
SINCE = datetime(2013, 5, 1, tzinfo=UTC)
_UNTIL = datetime(2014, 1, 1, tzinfo=UTC)
#: a day takes 3.6 s: 250 requests a second and some
SPEED = 24_000.0
#: seconds of a release: the stages' `at_most` together, four times for a machine that is busy
_LONGEST, _LOOK = 1200.0, 0.2
#: releases of one sound version: `release.alpha` of the demo rolls back up to 15% of them
_ATTEMPTS = 3
_SLOW, _FAILING = 0.25, 0.02


class ReleaseCandidates(NamedTuple):
    good: str
    leaked: str


def train_candidates(project: cumulant.Project, progress: Progress) -> ReleaseCandidates:
    """Train the candidates, before anything serves: both want the whole machine."""
    return ReleaseCandidates(train_good(project, SINCE), train_leaked(project, SINCE, progress))


def run_releases(
    project: cumulant.Project, candidates: ReleaseCandidates, progress: Progress
) -> tuple[tuple[ReleaseReport, ...], datetime]:
    """Release one candidate after the other while May and what follows are replayed; also how far the replay came.

    Raises:
        EngineUnavailableError: something does not start.
        StepFailedError: a release does not come to its end, or a sound version is rolled back each time.
    """
    return _over_callers(project, SINCE, progress, lambda releases: tuple(releases.run_all(candidates)))


def await_retrained(
    project: cumulant.Project, uri: str, identity: str, since: datetime, progress: Progress
) -> tuple[tuple[ReleaseReport, ...], datetime]:
    """The same for the release `identity` of `uri`, which monitoring has begun; the replay is from `since`."""
    return _over_callers(project, since, progress, lambda releases: tuple(releases.await_begun(uri, identity)))


def _over_callers(
    project: cumulant.Project, since: datetime, progress: Progress, do: Callable[[DemoReleases], T]
) -> tuple[T, datetime]:
    """The result of `do` while callers send requests from `since` on, and how far they came."""
    callers = DemoCallers(project, since=since, until=_UNTIL, speed=SPEED)
    with callers.calling():
        result = do(DemoReleases(project, callers, progress))
    if callers.replayed is None:
        raise callers.error or StepFailedError("the replay did not come to its end")
    model = f"{callers.replayed.model}/{callers.replayed.version}"
    # Without them the last day of a replay has the labels of flights in time, and lacks those of late ones.
    project.outcomes.ingest_replayed_labels(model, since, _UNTIL)
    return result, callers.replayed.reached


class DemoReleases:
    """Releases one after the other, while callers call."""

    def __init__(self, project: cumulant.Project, callers: DemoCallers, progress: Progress) -> None:
        self._project, self._callers, self._progress = project, callers, progress

    def run_all(self, candidates: ReleaseCandidates) -> Iterator[ReleaseReport]:
        yield from self._until_promoted("v2", candidates.good, self._release_version("v2", candidates.good))
        yield self._release_faulty("slow", Fault(slow=_SLOW))
        yield self._release_faulty("failing", Fault(failing=_FAILING))
        yield self._release_version("leaked", candidates.leaked)

    def _release_version(self, name: str, uri: str) -> ReleaseReport:
        return self._release(name, uri.rpartition("/")[2], uri)

    def _release_faulty(self, name: str, fault: Fault) -> ReleaseReport:
        stack = self._project.stack
        version, champion = stack.champion().version, stack.champion_url()
        with faulty_server(champion, fault, gateway_key=stack.gateway_key_file) as url:
            return self._release(name, version, external=(champion, url))

    def _release(
        self, name: str, version: str, uri: str = "", *, external: tuple[str, str] | None = None
    ) -> ReleaseReport:
        self._progress(f"release of {name}")
        self._callers.take_failures()
        begun = time.monotonic()
        started = self._project.releases.start(uri, external=external)
        assert started is not None
        return self._report(name, version, self._await_end(name, started.id), begun)

    def await_begun(self, uri: str, identity: str) -> Iterator[ReleaseReport]:
        """The release of a retrained version, which has begun already."""
        name, begun = "retrained", time.monotonic()
        release = self._await_end(name, identity)
        yield from self._until_promoted(name, uri, self._report(name, release.candidate.version, release, begun))

    def _until_promoted(self, name: str, uri: str, first: ReleaseReport) -> Iterator[ReleaseReport]:
        """The first release of a sound version, and further ones while it is rolled back by chance."""
        outcome = first
        yield outcome
        for _ in range(1, _ATTEMPTS):
            if outcome.verdict == "promoted":
                return
            outcome = self._release_version(name, uri)
            yield outcome
        if outcome.verdict != "promoted":
            raise StepFailedError(
                f"{name} was not promoted in {_ATTEMPTS} releases: {outcome.reason}", subject=outcome.id
            )

    def _report(self, name: str, version: str, release: Release, begun: float) -> ReleaseReport:
        failed = self._callers.take_failures()
        deadline = time.monotonic() + _LONGEST
        while "drained" not in self._current(release.id).settled and time.monotonic() < deadline:
            time.sleep(_LOOK)
        return ReleaseReport(
            candidate=name,
            version=version,
            verdict=release.status,
            reason=release.reason,
            stages=tuple(map(_stage, release.passed)),
            failed_requests=sum(failed.values()),
            failed_by=failed,
            seconds=round(time.monotonic() - begun, 1),
            id=release.id,
        )

    def _await_end(self, name: str, identity: str) -> Release:
        deadline = time.monotonic() + _LONGEST
        while time.monotonic() < deadline:
            release = self._current(identity)
            if release.over:
                return release
            if self._callers.over:
                raise self._callers.error or StepFailedError("the replay ended before the release", subject=identity)
            share = min(1.0, (release.at + min(1.0, release.seconds / release.step.at_least)) / len(release.steps))
            self._progress(f"{name} in {release.step.label}", share)
            time.sleep(_LOOK)
        raise StepFailedError(f"the release of {name} did not come to its end in {_LONGEST:g} s", subject=identity)

    def _current(self, identity: str) -> Release:
        release = self._project.releases.current()
        if release.id != identity:
            raise StepFailedError("another process began a release of the demo's model", subject=release.id)
        return release


def _stage(step: PassedStep) -> Stage:
    return Stage(
        name=step.label,
        weight=step.weight,
        seconds=step.seconds,
        samples=sum(step.samples.values()),
        champion_samples=step.samples.get(CHAMPION, 0),
        candidate_samples=step.samples.get(CANDIDATE, 0),
    )
