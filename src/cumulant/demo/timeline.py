"""The demo's year after its first model: releases in spring, harm and a retraining in summer, a shift in December."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

import cumulant
from cumulant.core.errors import StepFailedError
from cumulant.core.progress import Progress
from cumulant.demo import weather_feed
from cumulant.demo.batch_scoring import score
from cumulant.demo.project import FEED, mark_begun
from cumulant.demo.releases import SINCE, ReleaseCandidates, await_retrained, run_releases
from cumulant.demo.report import FindingReport, MonitoringReport, ReleaseReport, ReviewReport, Year
from cumulant.demo.review import review_cases

if TYPE_CHECKING:
    from cumulant.api.results import MonitorRun, RetrainRequest
    from cumulant.api.stack import RunningStack

#: the feed is fixed after a day, and monitoring evaluates each day; it may take some to show harm of one summer month
_DAY, _EVALUATIONS = timedelta(days=1), 7
_AUTUMN, _LAST = datetime(2013, 9, 1, tzinfo=UTC), datetime(2013, 12, 24, tzinfo=UTC)
#: of the flights after summer, one in so many is scored
_EVERY = 6
#: and of those before its release
_EVERY_EARLIER = 2


def year(project: cumulant.Project, champion: str, candidates: ReleaseCandidates, progress: Progress) -> Year:
    """Serve, release, monitor, retrain and release that automatically; then monitor the rest of the year.

    Raises:
        EngineUnavailableError: something does not start.
        StepFailedError: a release does not come to its end, or monitoring did not request a training.
    """
    mark_begun(project.root)
    project.stack.reset(reason="the demo begins again")
    return _Year(project, progress).run(champion, candidates)


class _Year:
    def __init__(self, project: cumulant.Project, progress: Progress) -> None:
        self._project, self._progress = project, progress
        self._findings: list[FindingReport] = []
        self._trained: list[str] = []

    def run(self, champion: str, candidates: ReleaseCandidates) -> Year:
        with self._up(champion):
            released, reached = run_releases(self._project, candidates, self._progress)
        queued, answered = review_cases(
            self._project, min(max(reached, FEED - timedelta(days=7)), FEED), self._progress
        )
        score(self._project, candidates.good, SINCE, reached, self._progress, every=_EVERY_EARLIER)
        score(self._project, candidates.good, reached, FEED, self._progress)
        weather_feed.go_null(self._project.root / "data", FEED)
        self._evaluate(FEED)
        retrained, reached = self._release_retrained(candidates.good, max(FEED, reached))
        used = self._project.reviews.used_for_training()
        self._autumn(f"{self._project.name}/{retrained[-1].version}", reached)
        alerts = self._project.monitoring.alerts(ended=True)
        return Year(
            release=(*released, *retrained),
            monitoring=MonitoringReport(
                findings=tuple(self._findings), alerts=tuple(alerts), trained=tuple(self._trained)
            ),
            review=ReviewReport(queued=queued, answered=answered, used_for_training=used),
        )

    def _up(self, model: str) -> RunningStack:
        """Everything here, or what is left to this machine where others have gateways and servers."""
        stack = self._project.stack
        return stack.up(model, roles=("controller",) if stack.spans_machines else ())

    def _release_retrained(self, served: str, since: datetime) -> tuple[tuple[ReleaseReport, ...], datetime]:
        """The feed is fixed; harm that persists is a reason to train, and the new version is released automatically."""
        weather_feed.restore_values(self._project.root / "data")
        at = self._day_of_request(served, since)
        # Servers that start now have the weather that has come since.
        with self._up(served):
            request = self._retrain(at)
            if request is None or request.candidate is None or request.release is None:
                reason = "nothing requested it" if request is None else request.message
                raise StepFailedError(f"the model of summer was not retrained and released: {reason}")
            return await_retrained(self._project, request.candidate, request.release, at, self._progress)

    def _day_of_request(self, served: str, since: datetime) -> datetime:
        for at in (FEED + number * _DAY for number in range(1, _EVALUATIONS + 1)):
            score(self._project, served, since, at, self._progress)
            since, result = max(since, at), self._evaluate(at)
            if result.action.do == "train":
                return at
        raise StepFailedError(
            f"no evaluation of the week after {FEED:%d %B} requested a training: {result.action.sentence}"
        )

    def _autumn(self, served: str, since: datetime) -> None:
        """A batch job scores some of the flights until Christmas; monitoring evaluates once more."""
        score(self._project, served, since, _AUTUMN, self._progress, every=_EVERY)
        score(self._project, served, max(since, _AUTUMN), _LAST, self._progress, every=_EVERY)
        self._evaluate(_LAST)

    def _evaluate(self, at: datetime) -> MonitorRun:
        self._progress(f"monitoring, {at:%d %B}")
        result = self._project.monitoring.run(at=at)
        self._findings += [
            FindingReport(**msgspec.structs.asdict(finding), at=at, version=result.version)
            for finding in result.findings
        ]
        return result

    def _retrain(self, at: datetime) -> RetrainRequest | None:
        request = self._project.monitoring.retrain(as_of=at)
        if request is not None and request.candidate is not None:
            self._trained.append(request.candidate)
        return request
