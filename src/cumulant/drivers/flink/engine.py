"""Jobs of Flink by the REST interface of its SQL gateway; their checkpoints by that of its JobManager."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cumulant.core.errors import DataError, EngineUnavailableError, NotFoundError, StorageError, UsageError
from cumulant.drivers.flink.location import parse_flink_url
from cumulant.drivers.flink.rest import FlinkRest
from cumulant.drivers.flink.sql_session import STATEMENT_SECONDS, Row, SqlSession, sql_session
from cumulant.ports.compute import JobState, StreamJob
from cumulant.ports.secrets import Secrets

#: states of a job that has ended
_ENDED = frozenset({"FAILED", "CANCELED", "FINISHED"})
#: of one that ends by itself soon
_ENDING = frozenset({"FAILING", "CANCELLING", "SUSPENDED"})
#: of one that computes, or is about to for the first time
_RUNNING = frozenset({"RUNNING", "CREATED", "INITIALIZING"})
#: for which the gateway waits for its cluster where only that is asked
_CHECK_SECONDS = 8
_ID = re.compile(r"[0-9a-f]{32}")


class FlinkEngine:
    """A client of one gateway, with a session for each call. Thread-safe."""

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        """
        Raises:
            UsageError: the URL is invalid.
        """
        self._address, self._secrets = parse_flink_url(url), secrets
        self.encrypted = self._address.encrypted

    def version(self) -> str:
        info = self._gateway().call("GET", "/v3/info")
        return f"{info.get('productName', 'Apache Flink')} {info.get('version', '')}".rstrip()

    def check(self) -> None:
        self.version()
        try:
            with self._session({"client.timeout": f"{_CHECK_SECONDS} s"}) as session:
                session.run("SHOW JOBS")  # the gateway reads them from the cluster
        except DataError as error:
            raise EngineUnavailableError(
                f"the SQL gateway answers, and its cluster does not: {error.message}",
                subject="stream_engine",
                hint="start the cluster, or correct rest.address and rest.port in the configuration of the gateway",
            ) from None
        place = self._address.jobmanager
        if place is None:
            return
        try:
            self._rest(place, "the JobManager").call("GET", "/overview")
        except NotFoundError:
            hint = "name the REST interface of the JobManager: &jobmanager=HOST:8081"
            text = f"no JobManager is at {urlsplit(place).netloc}"
            raise StorageError(text, subject="stream_engine", hint=hint) from None

    def submit(
        self, name: str, statements: Sequence[str], settings: Mapping[str, str], *, resume: str | None = None
    ) -> str:
        place = self._address.checkpoints
        own = {
            "pipeline.name": name,
            "execution.checkpointing.mode": "EXACTLY_ONCE",
            "execution.checkpointing.interval": f"{self._address.interval_ms} ms",
            "execution.checkpointing.dir": place,
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            **({} if resume is None else {"execution.state-recovery.path": resume}),
        }
        with self._session({**settings, **own}) as session:
            rows: list[Row] = []
            for statement in statements:
                rows = session.run(statement)
        job = str(rows[0].get("job id", "")) if rows else ""
        if not _ID.fullmatch(job):
            raise StorageError("Flink started no job", subject="stream_engine", hint="see the log of its gateway")
        return job

    def jobs(self) -> list[StreamJob]:
        with self._session({}) as session:
            rows = session.run("SHOW JOBS")
        with _expected("the gateway"):
            return _jobs(rows)

    def job_state(self, job: str) -> JobState:
        place = self._address.jobmanager
        if place is None:
            hint = "name the JobManager in the URL of stream_engine: &jobmanager=HOST:8081"
            raise NotFoundError("the gateway does not know of checkpoints", subject="stream_engine", hint=hint)
        answer = self._rest(place, "the JobManager").call("GET", f"/jobs/{_checked(job)}/checkpoints")
        with _expected("the JobManager"):
            return _state(answer)

    def stop(self, job: str) -> str:
        settings = {
            "execution.checkpointing.savepoint-dir": self._address.checkpoints,
            "client.timeout": f"{STATEMENT_SECONDS:.0f} s",
        }
        with self._session(settings) as session:
            rows = session.run(f"STOP JOB '{_checked(job)}' WITH SAVEPOINT")
        path = next((str(value) for row in rows for key, value in row.items() if key == "savepoint path"), "")
        if not path:
            raise StorageError("Flink names no savepoint", subject="stream_engine", hint="see its log")
        return path

    def cancel(self, job: str) -> None:
        with self._session({}) as session:
            session.run(f"STOP JOB '{_checked(job)}'")

    def close(self) -> None:
        """Nothing is open between calls."""

    def _session(self, settings: Mapping[str, str]) -> AbstractContextManager[SqlSession]:
        return sql_session(self._gateway(), settings)

    def _gateway(self) -> FlinkRest:
        return self._rest(self._address.gateway, "the SQL gateway of Flink")

    def _rest(self, base: str, what: str) -> FlinkRest:
        headers = {}
        if self._address.token is not None:
            if self._secrets is None:
                raise UsageError("the token is a secret, and no store of secrets is given")
            headers["authorization"] = f"Bearer {self._secrets.get(self._address.token)}"
        return FlinkRest(base, what, headers=headers, authority=self._address.authority)


@contextmanager
def _expected(what: str) -> Iterator[None]:
    """Raises StorageError: fields that the block reads are missing, or of another type."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        text = f"the answer of {what} is not that of Flink"
        raise StorageError(text, subject="stream_engine", hint="check the ports, and the version of Flink") from None


def _jobs(rows: Sequence[Row]) -> list[StreamJob]:
    return [
        StreamJob(
            id=str(row["job id"]),
            name=str(row["job name"]),
            state=str(row["status"]),
            ended=row["status"] in _ENDED,
            ending=row["status"] in _ENDING,
            running=row["status"] in _RUNNING,
            started=_moment(row.get("start time")),
        )
        for row in rows
    ]


def _state(answer: Row) -> JobState:
    latest, restores = answer.get("latest") or {}, (answer.get("counts") or {}).get("restored")
    if not isinstance(restores, int | None):
        raise TypeError("a count is a number")
    taken = [latest[kind] for kind in ("completed", "savepoint") if latest.get(kind)]
    if taken:
        newest = max(taken, key=lambda each: each["id"])
        return JobState(path=_path(newest), at=_from_ms(newest["trigger_timestamp"]), restores=restores)
    restored = latest.get("restored")
    if restored:
        at = _from_ms(restored["restore_timestamp"])
        return JobState(path=_path(restored), at=at, restores=restores)
    return JobState(restores=restores)


def _path(checkpoint: Row) -> str:
    path = checkpoint["external_path"]
    if not isinstance(path, str):
        raise TypeError("a path is text")
    return path


def _checked(job: str) -> str:
    if not _ID.fullmatch(job):
        raise DataError(f'"{job[:100]}" is no job of Flink', subject="stream_engine")
    return job


def _moment(text: object) -> datetime | None:
    """`2026-03-01T12:00:00.123Z`, as the gateway writes times in UTC."""
    try:
        parsed = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _from_ms(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
