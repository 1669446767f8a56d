"""The demo's releases, one after the other, on real processes: what the controller decided, and why."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from cumulant.core.errors import EngineUnavailableError, StepFailedError
from cumulant.core.progress import Progress
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.demo.batch_scoring import labels_after
from cumulant.flows.demo.candidates import faulty, good, leaked
from cumulant.flows.demo.data_fault import Fault
from cumulant.flows.demo.demo_traffic import DemoCallers
from cumulant.flows.demo.report import ReleaseReport, Stage
from cumulant.flows.release import actions, store
from cumulant.flows.release.controller.external_servers import ExternalServers
from cumulant.flows.release.start.start import start_release
from cumulant.flows.stack import lifecycle
from cumulant.flows.stack.desired_state import FOLDER, read_desired_state
from cumulant.flows.stack.gateway_key import key_path
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.project.project import Project

T = TypeVar("T")

#: v2 learns from what was known then, and May is what it is released over
SINCE = datetime(2013, 5, 1, tzinfo=UTC)
_UNTIL = datetime(2014, 1, 1, tzinfo=UTC)
#: a day takes 3.6 s: 250 requests a second and some
SPEED = 24_000.0
#: folder of the gateway in the project's state
GATEWAY = "gateway"
#: seconds of a release: the stages' `at_most` together, and as much again for a machine that is busy
_LONGEST, _LOOK = 600.0, 0.2
#: releases of one sound version: `release.alpha` of the demo rolls back up to 15% of them
_ATTEMPTS = 3
_SLOW, _FAILING = 0.25, 0.02


class ReleaseCandidates(NamedTuple):
    """Versions to be released."""

    good: str
    leaked: str


def train_candidates(project: Project, progress: Progress) -> ReleaseCandidates:
    """Train the candidates, before anything serves: both want the whole machine."""
    sound = good(project, SINCE, progress)
    wrong = leaked(project, SINCE, progress)
    return ReleaseCandidates(f"{sound.model.name}/{sound.model.version}", f"{wrong.model.name}/{wrong.model.version}")


def reset_serving(project: Project) -> None:
    """Forget what an earlier demo served here, so that its first version serves again. Models and logs stay.

    Raises:
        EngineUnavailableError: what still runs does not end.
    """
    who = project.principal()
    lifecycle.down(project, principal=who)
    current = store.read(project.journal(), project.name)
    if current is not None and not current[0].over:
        actions.abort(project, principal=who, reason="the demo begins again")
    for folder in (FOLDER, GATEWAY):
        shutil.rmtree(project.state / folder, ignore_errors=True)


def run_releases(
    project: Project, candidates: ReleaseCandidates, progress: Progress
) -> tuple[tuple[ReleaseReport, ...], datetime]:
    """Replay May and what follows through the stack, and release one candidate after the other; how far it came.

    Raises:
        EngineUnavailableError: something does not start.
        StepFailedError: a release does not come to its end, or a sound version is rolled back each time.
    """
    return _over_callers(project, SINCE, progress, lambda releasing: tuple(releasing.all(candidates)))


def await_retrained(
    project: Project, uri: str, identity: str, since: datetime, progress: Progress
) -> tuple[tuple[ReleaseReport, ...], datetime]:
    """The release `identity` of the version `uri`, which the watch has begun, over the callers of `since` and after; as
    `releases`.
    """
    return _over_callers(project, since, progress, lambda releasing: tuple(releasing.begun(uri, identity)))


def _over_callers(
    project: Project, since: datetime, progress: Progress, do: Callable[[DemoReleases], T]
) -> tuple[T, datetime]:
    """What `do` brings about while callers call from `since` on, and how far they came."""
    callers = DemoCallers(project, since=since, until=_UNTIL, speed=SPEED)
    with callers.calling():
        result = do(DemoReleases(project, callers, progress))
    if callers.replayed is None:
        raise callers.error or StepFailedError("the replay did not come to its end")
    labels_after(project, f"{callers.replayed.model}/{callers.replayed.version}", since, _UNTIL)
    return result, callers.replayed.reached


class DemoReleases:
    """Releases one after the other, while callers call."""

    def __init__(self, project: Project, callers: DemoCallers, progress: Progress) -> None:
        self._project, self._callers, self._progress = project, callers, progress

    def all(self, candidates: ReleaseCandidates) -> Iterator[ReleaseReport]:
        yield from self._until_promoted("v2", candidates.good, self._version("v2", candidates.good))
        yield self._faulty("slow", Fault(slow=_SLOW))
        yield self._faulty("failing", Fault(failing=_FAILING))
        yield self._version("leaked", candidates.leaked)

    def _version(self, name: str, uri: str) -> ReleaseReport:
        return self._one(name, uri.rpartition("/")[2], lambda: self._start(uri))

    def _faulty(self, name: str, fault: Fault) -> ReleaseReport:
        book = read_desired_state(self._project.state, self._project.name)
        assert book.champion is not None
        sound = book.versions[book.champion].endpoint
        with faulty(sound, fault, gateway_key=key_path(self._project.state)) as url:
            return self._one(
                name, book.champion, lambda: self._start("", ExternalServers(champion=sound, candidate=url))
            )

    def _start(self, uri: str, outside: ExternalServers | None = None) -> Release:
        begun = start_release(
            self._project, uri, principal=self._project.principal(), outside=outside, progress=self._progress
        )
        assert begun.release is not None
        return begun.release

    def _one(self, name: str, version: str, start: Callable[[], Release]) -> ReleaseReport:
        self._progress(f"release of {name}")
        self._callers.taken()
        begun = time.monotonic()
        return self._told(name, version, self._awaited(name, start().id), begun)

    def begun(self, uri: str, identity: str) -> Iterator[ReleaseReport]:
        """The release of a version that was trained again; it has begun already."""
        name, begun = "retrained", time.monotonic()
        release = self._awaited(name, identity)
        yield from self._until_promoted(name, uri, self._told(name, release.candidate.version, release, begun))

    def _until_promoted(self, name: str, uri: str, first: ReleaseReport) -> Iterator[ReleaseReport]:
        """The first release of a sound version, and those after it as long as it is rolled back by chance."""
        outcome = first
        yield outcome
        for _ in range(1, _ATTEMPTS):
            if outcome.verdict == "promoted":
                return
            outcome = self._version(name, uri)
            yield outcome
        if outcome.verdict != "promoted":
            raise StepFailedError(
                f"{name} was not promoted in {_ATTEMPTS} releases: {outcome.reason}", subject=outcome.id
            )

    def _told(self, name: str, version: str, release: Release, begun: float) -> ReleaseReport:
        failed = self._callers.taken()
        self._settled(release.id)
        return ReleaseReport(
            candidate=name,
            version=version,
            verdict=release.status,
            reason=release.reason,
            stages=tuple(map(_stage, _passed(release))),
            failed_requests=sum(failed.values()),
            failed_by=failed,
            seconds=round(time.monotonic() - begun, 1),
            id=release.id,
        )

    def _awaited(self, name: str, identity: str) -> Release:
        deadline = time.monotonic() + _LONGEST
        while time.monotonic() < deadline:
            release = self._row(identity)
            if release.over:
                return release
            if self._callers.over:
                raise self._callers.error or StepFailedError("the replay ended before the release", subject=identity)
            share = min(1.0, (release.at + min(1.0, release.seconds / release.step.at_least)) / len(release.steps))
            self._progress(f"{name} in {release.step.label}", share)
            time.sleep(_LOOK)
        raise StepFailedError(f"the release of {name} did not come to its end in {_LONGEST:g} s", subject=identity)

    def _settled(self, identity: str) -> None:
        """Until all is done that the end asks for: the next release finds it as it should be."""
        deadline = time.monotonic() + _LONGEST
        while "drained" not in self._row(identity).settled and time.monotonic() < deadline:
            time.sleep(_LOOK)

    def _row(self, identity: str) -> Release:
        release, _ = store.read_required(self._project.journal(), self._project.name)
        if release.id != identity:
            raise StepFailedError("somebody else began a release of the demo's model", subject=release.id)
        return release


def _passed(release: Release) -> tuple[dict[str, object], ...]:
    return tuple(msgspec.to_builtins(stage) for stage in release.passed)


def _stage(passed: dict[str, object]) -> Stage:
    samples = msgspec.convert(passed["samples"], dict[str, int])
    fields = {**passed, "name": passed["label"], "samples": sum(samples.values())}
    arms = {f"{arm}_samples": samples.get(arm, 0) for arm in (CHAMPION, CANDIDATE)}
    return msgspec.convert({**fields, **arms}, Stage)


@contextmanager
def up(project: Project, champion: str, progress: Progress) -> Iterator[None]:
    """The stack, ended with the block."""
    started = lifecycle.up(project, champion, principal=project.principal(), http="127.0.0.1:0", progress=progress)
    try:
        yield
    finally:
        _end(started.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise EngineUnavailableError(
            "the supervisor did not end in time", hint="`cumulant down` ends what is left"
        ) from None
