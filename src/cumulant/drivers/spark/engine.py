"""Queries on Spark by its Connect protocol. Rows are handed over as Parquet files in a folder that both sides see."""

from __future__ import annotations

import shutil
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException

from cumulant.core.errors import DataError, EngineUnavailableError, StorageError, UsageError
from cumulant.drivers.spark.location import parse_spark_url
from cumulant.ports.secrets import Secrets

if TYPE_CHECKING:
    import polars as pl
    from pyspark.sql.connect.session import SparkSession

#: of the files that results come in
_TIMES = {"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS"}
_RESULT = "result"
_CONNECT_SECONDS = 10.0
#: how often the client tries again while a server does not answer: for half a minute
_RETRIES = 6
#: of the message of an error, which may be followed by a plan
_SHOWN = 300


class SparkEngine:
    """A client of one server, with a session for each query. Thread-safe."""

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        """
        Raises:
            UsageError: the URL is invalid.
        """
        self._address, self._secrets = parse_spark_url(url), secrets

    def version(self) -> str:
        with self._errors(), self._session() as session:
            return str(session.version)

    @contextmanager
    def query(
        self, text: str, views: Mapping[str, pl.LazyFrame], *, order_by: str, settings: Mapping[str, str]
    ) -> Iterator[Iterator[pl.DataFrame]]:
        folder = self._address.staging / f"cumulant-{uuid.uuid4().hex}"
        try:
            with _disk(folder):
                folder.mkdir(mode=0o700, parents=True)
                for number, frame in enumerate(views.values()):
                    frame.sink_parquet(folder / f"{number}.parquet")
            with self._errors(), self._session() as session:
                for name, value in {**settings, **_TIMES}.items():
                    session.conf.set(name, value)
                for number, name in enumerate(views):
                    session.read.parquet(str(folder / f"{number}.parquet")).createOrReplaceTempView(name)
                session.sql(text).orderBy(order_by).write.parquet(str(folder / _RESULT))
            yield _read(folder / _RESULT)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Nothing is open between queries."""

    @contextmanager
    def _session(self) -> Iterator[SparkSession]:
        with warnings.catch_warnings():
            # its warning that the newest pandas is not supported: none of pandas is used
            warnings.simplefilter("ignore", FutureWarning)
            from pyspark.sql.connect.client.retries import DefaultPolicy
            from pyspark.sql.connect.session import SparkSession

            self._check_place()
            session = SparkSession(self._address.connection(self._token()))
            try:
                session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
                yield session
            finally:
                session.stop()

    def _check_place(self) -> None:
        """Ask for a connection before the client does, which tries for ten minutes."""
        try:
            socket.create_connection((self._address.host, self._address.port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise self._away() from error

    def _token(self) -> str | None:
        if self._address.token is None:
            return None
        if self._secrets is None:
            raise UsageError("the token is a secret, and no store of secrets is given")
        return self._secrets.get(self._address.token)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The errors of the client as those of the port."""
        from grpc import RpcError

        try:
            yield
        except RpcError as error:
            raise self._away() from error
        except PySparkException as error:
            if "UNAVAILABLE" in str(error) or "RETRIES_EXCEEDED" in str(error):
                raise self._away() from error
            if "PATH_NOT_FOUND" in str(error):
                raise StorageError(
                    f"Spark does not see {self._address.staging}",
                    subject="history",
                    hint="name a staging folder that Spark sees at the same path, and run both as one user: what is"
                    " handed over is private to that user",
                ) from error
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise DataError(f"Spark failed: {line[:_SHOWN]}", subject="history", hint="see Spark's own log") from error

    def _away(self) -> EngineUnavailableError:
        address = f"{self._address.host}:{self._address.port}"
        return EngineUnavailableError(
            f"Spark does not answer at {address}", subject="history", hint="start its Connect server, or check the URL"
        )


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"rows cannot be handed over to Spark: {error.strerror or error}",
            subject=str(folder.parent),
            hint="free some space, or make the folder writable",
        ) from error


def _read(folder: Path) -> Iterator[pl.DataFrame]:
    """The rows of a result, file by file in their order."""
    import polars as pl

    files = sorted(folder.glob("part-*.parquet"))
    if not files:
        raise StorageError(
            f"Spark's result is not in {folder.parent.parent}",
            subject="history",
            hint="name a staging folder that the machines of Spark see at the same path",
        )
    for file in files:
        yield pl.read_parquet(file)
