"""The demo's year after its first model: releases in spring, harm and a retraining in summer, a shift in December."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import StepFailedError
from cumulant.core.progress import Progress
from cumulant.flows.alerting.views import overview
from cumulant.flows.demo import weather_feed
from cumulant.flows.demo.batch_scoring import score
from cumulant.flows.demo.demo_project import FEED, begun
from cumulant.flows.demo.releases import SINCE, ReleaseCandidates, await_retrained, reset_serving, run_releases, up
from cumulant.flows.demo.report import FindingReport, MonitoringReport, ReleaseReport, ReviewReport, Year
from cumulant.flows.demo.review import review_cases
from cumulant.flows.monitoring.retraining import continue_retraining
from cumulant.flows.monitoring.run import MonitorRun, run_monitoring
from cumulant.flows.monitoring.state import RetrainRequest
from cumulant.flows.review.service import used_for_training

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: the feed is fixed after a day, and the watch evaluates each day; harm of one summer month may take some to be shown
_DAY, _LOOKS = timedelta(days=1), 7
_AUTUMN, _LAST = datetime(2013, 9, 1, tzinfo=UTC), datetime(2013, 12, 24, tzinfo=UTC)
#: of the flights after summer, one in so many is scored
_EVERY = 6
#: and of those before its release
_EVERY_EARLIER = 2


def year(project: Project, champion: str, candidates: ReleaseCandidates, progress: Progress) -> Year:
    """Serve, release, watch, train again and release that by itself; then watch the rest of the year.

    Raises:
        EngineUnavailableError: something does not start.
        StepFailedError: a release does not come to its end, or the watch did not ask for a training.
    """
    begun(project.root)
    reset_serving(project)
    return _Year(project, progress).whole(champion, candidates)


class _Year:
    def __init__(self, project: Project, progress: Progress) -> None:
        self._project, self._progress = project, progress
        self._findings: list[FindingReport] = []
        self._trained: list[str] = []

    def whole(self, champion: str, candidates: ReleaseCandidates) -> Year:
        with up(self._project, champion, self._progress):
            released, reached = run_releases(self._project, candidates, self._progress)
        queued, answered = review_cases(
            self._project, min(max(reached, FEED - timedelta(days=7)), FEED), self._progress
        )
        self._fault(candidates.good, reached)
        again, reached = self._retrained(candidates.good, max(FEED, reached))
        used = used_for_training(self._project)
        self._autumn(f"{self._project.name}/{again[-1].version}", reached)
        alerts = overview(self._project, principal=self._project.principal(), ended=True).alerts
        return Year(
            release=(*released, *again),
            monitoring=MonitoringReport(
                findings=tuple(self._findings), alerts=tuple(alerts), trained=tuple(self._trained)
            ),
            review=ReviewReport(queued=queued, answered=answered, used_for_training=used),
        )

    def _fault(self, served: str, since: datetime) -> None:
        """The rest of July's flights are answered; then a day of weather comes without values, which trains nothing.

        What the version says of flights since it was trained is filled in: its release gave it callers only some day,
        and few at first.
        """
        score(self._project, served, SINCE, since, self._progress, every=_EVERY_EARLIER)
        score(self._project, served, since, FEED, self._progress)
        weather_feed.go_null(self._project.root / "data", FEED)
        self._look(FEED)

    def _retrained(self, served: str, since: datetime) -> tuple[tuple[ReleaseReport, ...], datetime]:
        """The feed is fixed; harm that persists is a reason to train, and the new version is released automatically."""
        weather_feed.restore_values(self._project.root / "data")
        at = self._day_of_request(served, since)
        # Servers that begin now know of the weather that has come since.
        with up(self._project, served, self._progress):
            wanted = self._trained_by(at)
            if wanted is None or wanted.candidate is None or wanted.release is None:
                reason = "nothing asked for it" if wanted is None else wanted.message
                raise StepFailedError(f"the model of summer was not trained again and released: {reason}")
            return await_retrained(self._project, wanted.candidate, wanted.release, at, self._progress)

    def _day_of_request(self, served: str, since: datetime) -> datetime:
        """The day of the evaluation that requested a training."""
        for at in (FEED + number * _DAY for number in range(1, _LOOKS + 1)):
            score(self._project, served, since, at, self._progress)
            since, seen = max(since, at), self._look(at)
            if seen.action.do == "train":
                return at
        raise StepFailedError(f"no look of the week after {FEED:%d %B} asked for a training: {seen.action.sentence}")

    def _autumn(self, served: str, since: datetime) -> None:
        """A batch job scores some of the flights until Christmas, and the watch looks once more."""
        score(self._project, served, since, _AUTUMN, self._progress, every=_EVERY)
        score(self._project, served, max(since, _AUTUMN), _LAST, self._progress, every=_EVERY)
        self._look(_LAST)

    def _look(self, at: datetime) -> MonitorRun:
        """One look of the watch, as `cumulant monitor watch --once --at` has it."""
        self._progress(f"the watch looks, {at:%d %B}")
        seen = run_monitoring(self._project, principal=self._project.principal(), at=at, progress=self._progress)
        self._findings += [
            FindingReport(**msgspec.structs.asdict(finding), at=at, version=seen.version) for finding in seen.findings
        ]
        return seen

    def _trained_by(self, at: datetime) -> RetrainRequest | None:
        request = continue_retraining(
            self._project, principal=self._project.principal(), as_of=at, progress=self._progress
        )
        if request is not None and request.candidate is not None:
            self._trained.append(request.candidate)
        return request
