"""`project.feature_store`: stored features, what is known of them, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cumulant.api.errors import short_methods
from cumulant.api.group import MethodGroup
from cumulant.core.units import moment

if TYPE_CHECKING:
    from cumulant.flows.features.backfill import Backfill
    from cumulant.flows.features.freshness import FreshnessReport
    from cumulant.flows.features.jobs.job_control import StartedJob, StoppedJob
    from cumulant.flows.features.jobs.job_status import JobStatus
    from cumulant.flows.features.online_read import OnlineRead
    from cumulant.flows.features.store_status import FeatureStoreStatus
    from cumulant.flows.features.verification_record import FeatureVerification


@short_methods
class ProjectFeatureStore(MethodGroup):
    """The stored features of a project. `project.features()` is the feature table, for training and analysis."""

    def status(self) -> FeatureStoreStatus:
        """Tables with their versions, keys, events and freshness, as `cumulant features status`; `.faulty`."""
        from cumulant.flows.features.store_status import feature_status

        return feature_status(self._loaded, principal=self._principal)

    def freshness(self) -> FreshnessReport:
        """The age of the newest event by source, as `cumulant features freshness`; `.missed`: objectives."""
        from cumulant.flows.features.freshness import show_freshness

        return show_freshness(self._loaded, principal=self._principal)

    def backfill(self, model: str = "") -> Backfill:
        """Fill a definition's table beside what is served, as `cumulant features backfill`.

        Raises:
            UsageError: the definition needs no stored features.
            DefinitionError, UserCodeError: of the features file.
            ContractBreachError: the newest data are refused.
        """
        from cumulant.flows.features.backfill import backfill

        with self._follow("backfill") as progress:
            return backfill(self._loaded, principal=self._principal, model=model, progress=progress)

    def start_job(self, *, resume: str = "") -> StartedJob:
        """Start the job of another engine that computes the features of streams, as `cumulant features start-job`.

        Raises:
            UsageError: the environment names no engine, or its streams are not on Kafka.
            DefinitionError: the engine cannot compute the features, or they show personal values.
            StorageError: nothing says how far the job came that has ended: `resume` says where to go on.
            DataError: the job of another definition cannot be stopped: this one is started.
            LeaseHeldError: another process starts or stops jobs at this moment.
            EngineUnavailableError: the engine or the brokers do not answer.
        """
        from cumulant.flows.features.jobs.run_job import start_job

        with self._follow("job") as progress:
            return start_job(self._loaded, principal=self._principal, resume=resume, progress=progress)

    def stop_job(self) -> list[StoppedJob]:
        """Stop the jobs of the project with a savepoint each, as `cumulant features stop-job`.

        Raises as `start_job`.
        """
        from cumulant.flows.features.jobs.run_job import stop_jobs

        with self._follow("job") as progress:
            return stop_jobs(self._loaded, principal=self._principal, progress=progress)

    def jobs(self) -> list[JobStatus]:
        """The newest job of each definition, as `cumulant features jobs`; `.faulty`. Raises as `start_job`."""
        from cumulant.flows.features.jobs.job_status import job_status

        return job_status(self._loaded, principal=self._principal)

    def verify(self, *, since: datetime | str | None = None, rows: int = 1000) -> FeatureVerification:
        """Recompute features of served rows from the history, as `cumulant features verify`; `.failed`, `.features`.

        Raises:
            StorageError: the prediction log or a snapshot cannot be read.
        """
        from cumulant.flows.features.verify import verify_features

        with self._follow("verify features") as progress:
            return verify_features(
                self._loaded, principal=self._principal, since=when_of(since), rows=rows, progress=progress
            )

    def get(
        self,
        *keys: Mapping[str, Any],
        at: datetime | str | None = None,
        model: str = "",
        definition: bool = False,
        fingerprint: str = "",
        own_rows: bool = False,
    ) -> OnlineRead:
        """Features of entities from the online store, as `cumulant features get --online`.

        `keys`: fields of a request by name, the same for each, such as `{"card": "c17"}`. `own_rows`: they are whole
        rows of predictions, which count in their own windows as in training. `definition`: the project's features file
        in place of a model, by default the champion.

        Raises:
            ConflictError: the definition has another fingerprint, or nothing is stored of it yet.
            RequestError: a field or value does not fit.
            RefusedError: an entity is older than its `ttl`, and `on_expired` refuses.
            EngineUnavailableError: the online store does not answer.
        """
        from cumulant.flows.features.online_read import OnlineReadRequest, read_features

        read = OnlineReadRequest(keys, when_of(at), fingerprint, definition, own_rows)
        return read_features(self._loaded, read, principal=self._principal, model=model)


def when_of(at: datetime | str | None) -> datetime | None:
    return None if at is None else moment(at)
