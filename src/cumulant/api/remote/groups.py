"""`project.releases`, `.monitoring`, `.reviews`, `.outcomes`, `.subjects` and `.stack` of a project on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cumulant.api.errors import short_methods
from cumulant.api.remote.local_only import missing_method
from cumulant.core.errors import UsageError
from cumulant.core.units import moment
from cumulant.server.client.http_api import HttpApi
from cumulant.server.model_uri import LATEST
from cumulant.server.operation import MOST_ITEMS

if TYPE_CHECKING:
    from cumulant.core.progress import Progress
    from cumulant.flows.alerting.views import AlertView
    from cumulant.flows.features.backfill import Backfill
    from cumulant.flows.features.freshness import FreshnessReport
    from cumulant.flows.features.jobs.job_control import StartedJob, StoppedJob
    from cumulant.flows.features.jobs.job_status import JobStatus
    from cumulant.flows.features.online_read import OnlineRead
    from cumulant.flows.features.store_status import FeatureStoreStatus
    from cumulant.flows.features.verification_record import FeatureVerification
    from cumulant.flows.monitoring.drift.drift_history import DriftHistory
    from cumulant.flows.monitoring.monitoring_views import QualityView
    from cumulant.flows.monitoring.state import RetrainRequest
    from cumulant.flows.outcomes.labels import Intake
    from cumulant.flows.release.rollback import RollbackResult
    from cumulant.flows.release.views import ReleaseView
    from cumulant.flows.review.service import AnsweredCase
    from cumulant.flows.review.views import CaseLine, CaseView
    from cumulant.flows.serving.predictions import PredictionView
    from cumulant.flows.stack.status import Status
    from cumulant.flows.subjects.subjects import Erasure, FoundSubject, SubjectAdmitted
    from cumulant.outcomes.importing import ImportReport
    from cumulant.server.operations.monitoring import MonitorSummary


class RemoteGroup:
    """Methods of one subject. `follow` shows the progress of a method, by its title."""

    def __init__(self, http: HttpApi, follow: Callable[[str], AbstractContextManager[Progress]]) -> None:
        self._http, self._follow = http, follow

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise missing_method(type(self).__name__.removeprefix("Remote").lower(), name, url=self._http.url)

    def _followed(self, title: str, name: str, **arguments: Any) -> Any:
        with self._follow(title) as progress:
            return self._http.call(name, progress=progress, **arguments)


@short_methods
class RemoteReleases(RemoteGroup):
    """Releases of the project."""

    def start(
        self,
        model: str = "",
        *,
        external: tuple[str, str] | None = None,
        override_slo: str = "",
        approval: bool = False,
    ) -> ReleaseView | None:
        """Begin the release of a version; None where it waits for one under way.

        `override_slo`: why it begins and goes on whatever the objectives of the served model are; it is recorded.

        Raises:
            UsageError: `external` is given; such a release begins on the server's machine.
        """
        if external is not None:
            raise UsageError(
                "a release of external servers begins on the machine of the project",
                hint="`cumulant release start --champion-url ... --candidate-url ...` there",
            )
        started = self._followed("release", "releases.start", model=model, override_slo=override_slo, approval=approval)
        return cast("ReleaseView | None", started.release)

    def current(self) -> ReleaseView:
        """The release under way, else the newest one; `.status`, `.reason`, `.over`."""
        return cast("ReleaseView", self._http.call("releases.show", release=LATEST))

    def history(self) -> list[ReleaseView]:
        """All releases, newest first."""
        return list(self._http.pages("releases.list"))

    def pause(self, *, reason: str) -> ReleaseView:
        """Keep the weights as they are."""
        return cast("ReleaseView", self._http.call("releases.pause", reason=reason))

    def resume(self, *, reason: str = "") -> ReleaseView:
        """Resume a paused release."""
        return cast("ReleaseView", self._http.call("releases.resume", reason=reason))

    def promote(self, *, reason: str) -> ReleaseView:
        """Send everything to the candidate now, whatever the evidence."""
        return cast("ReleaseView", self._http.call("releases.promote", reason=reason))

    def abort(self, *, reason: str) -> ReleaseView:
        """Send everything back to the champion and end the release."""
        return cast("ReleaseView", self._http.call("releases.abort", reason=reason))

    def approve(self, *, reason: str = "") -> ReleaseView:
        """Agree to what the release waits for."""
        return cast("ReleaseView", self._http.call("releases.approve", reason=reason))

    def roll_back(self, *, reason: str, to: str = "") -> RollbackResult:
        """Send all requests to a version that was served before; default: the one before."""
        return cast("RollbackResult", self._http.call("releases.roll_back", reason=reason, to=to))


@short_methods
class RemoteMonitoring(RemoteGroup):
    """Monitoring of what the project serves."""

    def run(self, *, at: datetime | None = None) -> MonitorSummary:
        """Evaluate once; with `at`, from what was known at that moment."""
        return cast("MonitorSummary", self._followed("monitor", "monitoring.run", at=at))

    def retrain(self, *, as_of: datetime | None = None) -> RetrainRequest | None:
        """Train and release as far as the recorded request of retraining requires; None without a request."""
        return cast("RetrainRequest | None", self._followed("retrain", "monitoring.retrain", as_of=as_of))

    def alerts(self, *, ended: bool = False) -> Sequence[AlertView]:
        """Alerts that fire or are pending, the most urgent first; with `ended` then those that are over."""
        return cast("Sequence[AlertView]", self._http.call("alerts.list", ended=ended).alerts)

    def quality(self, *, version: str = "") -> QualityView | None:
        """The labelled quality of a version over time; default: of the one that serves."""
        return cast("QualityView | None", self._http.call("monitoring.quality", version=version))

    def drift(self) -> DriftHistory | None:
        """How far each column was from the reference over time."""
        return cast("DriftHistory | None", self._http.call("monitoring.drift"))


@short_methods
class RemoteReviews(RemoteGroup):
    """The review queue of the project."""

    def fill(self, *, since: datetime | None = None, whole_budget: bool = False) -> int:
        """Queue cases from the predictions since the last draw; returns their number."""
        return int(self._followed("review", "review.fill", since=since, at_once=whole_budget).added)

    def answer(self, label: Callable[[CaseView], object], *, limit: int, at: datetime | None = None) -> int:
        """Decide up to `limit` open cases as `label` returns, which gets what a reviewer sees; returns their number.

        A case for which it returns None stays open.

        Raises:
            UsageError: a label is not one of the model's; `at` is given, as a server records its own moment.
        """
        if at is not None:
            raise UsageError("a server records the moment of an answer itself", subject="at", hint="leave it out")
        answered, passed = 0, list[str]()
        while answered < limit:
            case: CaseView | None = self._http.call("review.next", passed=passed)
            if case is None:
                break
            answer = label(case)
            if answer is None:
                passed.append(case.id)
                continue
            self.decide(case.id, answer)
            answered += 1
        return answered

    def cases(self, *, status: str = "waiting") -> Iterator[CaseLine]:
        """Cases, page by page: waiting ones in their order, or closed ones, newest first."""
        return self._http.pages("review.list", status=status)

    def next(self) -> CaseView | None:
        """Take the next case; None where none is left."""
        return cast("CaseView | None", self._http.call("review.next"))

    def decide(self, case: str, label: object, *, note: str = "", seen: str | None = None) -> AnsweredCase:
        """Decide what is true of a case."""
        return cast("AnsweredCase", self._http.call("review.decide", case=case, label=label, note=note, seen=seen))

    def undo(self, case: str, *, seen: str | None = None) -> AnsweredCase:
        """Withdraw your answer to a case, as long as it has not become a label."""
        return cast("AnsweredCase", self._http.call("review.undo", case=case, seen=seen))


@short_methods
class RemoteOutcomes(RemoteGroup):
    """Predictions and labels of the project."""

    def predictions(
        self, *, model: str | None = None, since: datetime | None = None, limit: int = 20
    ) -> list[PredictionView]:
        """The newest rows of the prediction log, newest first; personal values are keyed hashes."""
        pages = self._http.pages("predictions.list", model=model or "", since=since, limit=min(limit, MOST_ITEMS))
        return list(islice(pages, limit))

    def import_predictions(
        self, path: Path | str, columns: Mapping[str, str], *, version: str = "imported"
    ) -> ImportReport:
        """Send a file of predictions of another system, of at most 64 MiB, which come into the prediction log once.

        `columns` names the column of each part: `id`, `time`, `prediction`, `score` and so on.

        Raises:
            UsageError: a part has no column, or the file is too large.
            DataError, StorageError: the file cannot be read.
        """
        from cumulant.core.structs import struct_from
        from cumulant.outcomes.importing import ImportReport

        file, parts = Path(path), tuple(f"{part}={column}" for part, column in columns.items())
        sent = self._http.call("predictions.import", upload=file, name=file.name, part=parts, version=version)
        return struct_from(ImportReport, sent)

    def ingest_labels(self) -> Intake:
        """Take in the labels that `monitoring.labels` of the project file names, and join them."""
        return cast("Intake", self._followed("labels", "labels.ingest"))


@short_methods
class RemoteSubjects(RemoteGroup):
    """What the project holds of one subject (a person, a customer)."""

    def find(self, value: str, *, source: str = "") -> FoundSubject:
        """The places that hold rows of the subject or its keyed hash."""
        return cast("FoundSubject", self._followed("find subject", "subjects.find", value=value, source=source))

    def erase(self, value: str, *, source: str = "") -> Erasure:
        """Erase what can be erased of the subject, and search again."""
        return cast("Erasure", self._followed("erase subject", "subjects.erase", value=value, source=source))

    def admit(self, value: str, *, source: str = "") -> SubjectAdmitted:
        """Read rows of an erased subject again, of events after its erasure."""
        return cast("SubjectAdmitted", self._followed("admit subject", "subjects.admit", value=value, source=source))


@short_methods
class RemoteFeatureStore(RemoteGroup):
    """The stored features of the project."""

    def status(self) -> FeatureStoreStatus:
        """Tables with their versions, keys, events and freshness; `.faulty`."""
        return cast("FeatureStoreStatus", self._http.call("features.status"))

    def freshness(self) -> FreshnessReport:
        """The age of the newest event by source; `.missed`: objectives."""
        return cast("FreshnessReport", self._http.call("features.freshness"))

    def backfill(self, model: str = "") -> Backfill:
        """Fill a definition's table beside what is served."""
        return cast("Backfill", self._followed("backfill", "features.backfill", model=model))

    def start_job(self, *, resume: str = "") -> StartedJob:
        """Start the job of another engine that computes the features of streams."""
        return cast("StartedJob", self._followed("job", "features.start_job", resume=resume))

    def stop_job(self) -> list[StoppedJob]:
        """Stop the jobs of the project with a savepoint each."""
        return cast("list[StoppedJob]", self._followed("job", "features.stop_job"))

    def jobs(self) -> list[JobStatus]:
        """The newest job of each definition; `.faulty`."""
        return cast("list[JobStatus]", self._http.call("features.jobs"))

    def verify(self, *, since: datetime | str | None = None, rows: int = 1000) -> FeatureVerification:
        """Recompute features of served rows from the history; `.failed`, `.features`."""
        since = moment(since) if isinstance(since, str) else since
        return cast("FeatureVerification", self._followed("verify", "features.verify", since=since, rows=rows))

    def get(
        self,
        *keys: Mapping[str, Any],
        at: datetime | str | None = None,
        model: str = "",
        definition: bool = False,
        fingerprint: str = "",
        own_rows: bool = False,
    ) -> OnlineRead:
        """Features of entities from the online store, at most 1,000 at once."""
        read: dict[str, Any] = {"definition": definition, "fingerprint": fingerprint, "own_rows": own_rows}
        at = moment(at) if isinstance(at, str) else at
        return cast("OnlineRead", self._http.call("features.online", keys=list(keys), at=at, model=model, **read))


@short_methods
class RemoteStack(RemoteGroup):
    """The processes that serve the project, on the server's machine."""

    def status(self) -> Status | None:
        """The processes, as `cumulant ps`; None where none serve."""
        return cast("Status | None", self._http.call("stack.show"))
