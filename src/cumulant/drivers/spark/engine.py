"""Stages of functions on Spark by its Connect protocol: its Python workers run them, it moves blocks between them.

Large things are files in a folder that both sides see.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import EngineUnavailableError, MissingPartError, StorageError, UsageError
from cumulant.drivers.spark.location import SparkAddress, parse_spark_url
from cumulant.drivers.spark.spark_errors import spark_errors
from cumulant.drivers.spark.worker import SCHEMA, StageFunction, batch_of, check_folder, packages
from cumulant.ports.compute import WorkerBlock, WorkerStage
from cumulant.ports.secrets import Secrets

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.connect.session import SparkSession

#: the first version whose rows can be divided into partitions that the client numbers
_LEAST_VERSION = (4, 1)
_CONNECT_SECONDS = 10.0
#: so long tasks that were interrupted may still write, and between two tries to remove what they wrote
_REMOVE_SECONDS, _PAUSE = 10.0, 0.2
_log = logging.getLogger(__name__)
#: how often the client tries again while a server does not answer: for half a minute
_RETRIES = 6
#: each stage says itself into how many parts it is divided, and a block may have megabytes
_SETTINGS = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "16",
}


class SparkEngine:
    """A client of one server. Thread-safe."""

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        """
        Raises:
            UsageError: the URL is invalid.
        """
        self._address, self._secrets = parse_spark_url(url), secrets

    def version(self) -> str:
        with self._connected() as session, spark_errors(self._away):
            return str(session.version)

    @contextmanager
    def session(self) -> Iterator[SparkWorkers]:
        folder = self._address.staging / f"cumulant-{uuid.uuid4().hex}"
        try:
            with self._connected() as session:
                try:
                    folder.mkdir(mode=0o700, parents=True)
                except OSError as error:
                    raise StorageError(
                        f"rows cannot be handed over to Spark: {error.strerror or error}",
                        subject=str(folder.parent),
                        hint="free some space, or make the folder writable",
                    ) from error
                workers = SparkWorkers(session, self._address, folder)
                workers.check()
                yield workers
        finally:
            remove_folder(folder)

    def close(self) -> None:
        """Nothing is open between sessions."""

    @contextmanager
    def _connected(self) -> Iterator[SparkSession]:
        with warnings.catch_warnings():
            # its warning that the newest pandas is not supported: none of pandas is used
            warnings.simplefilter("ignore", FutureWarning)
            from pyspark.sql.connect.client.retries import DefaultPolicy
            from pyspark.sql.connect.session import SparkSession

        check_answers(self._address)
        with spark_errors(self._away):
            session = SparkSession(self._address.connection(self._token()))
        try:
            session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
            yield session
        finally:
            try:
                check_answers(self._address)
            except EngineUnavailableError:
                session.client.close()  # nothing to end there
            else:
                session.stop()

    def _token(self) -> str | None:
        if self._address.token is None:
            return None
        if self._secrets is None:
            raise UsageError("the token is a secret, and no store of secrets is given")
        return self._secrets.get(self._address.token)

    def _away(self) -> EngineUnavailableError:
        return away(self._address)


class SparkWorkers:
    """One session. Its workers are its own: the first stage starts them."""

    def __init__(self, session: SparkSession, address: SparkAddress, folder: Path) -> None:
        self._session, self._address, self.folder = session, address, folder
        self._packages = packages()

    def check(self) -> None:
        """As `HistoryEngine.session` raises."""
        with spark_errors(lambda: away(self._address)):
            check_version(str(self._session.version))
            for name, value in _SETTINGS.items():
                self._session.conf.set(name, value)
        stage = WorkerStage(f"{check_folder.__module__}:{check_folder.__name__}", {"folder": str(self.folder)}, 1)
        self.run([b""], [stage])

    def run(self, inputs: Sequence[bytes], stages: Sequence[WorkerStage]) -> list[WorkerBlock]:
        if not inputs:
            return []
        with spark_errors(lambda: away(self._address)):
            rows = self._plan(inputs, stages).toArrow().to_pydict()
        return [WorkerBlock(*row) for row in zip(rows["key"], rows["order"], rows["data"], strict=True)]

    def _plan(self, inputs: Sequence[bytes], stages: Sequence[WorkerStage]) -> DataFrame:
        import pyarrow as pa

        blocks = batch_of([WorkerBlock(place, 0, data) for place, data in enumerate(inputs)])
        rows = self._session.createDataFrame(pa.Table.from_batches([blocks]))
        for number, stage in enumerate(stages):
            if number or stage.parts < len(inputs):
                rows = rows.repartitionById(stage.parts, (rows["key"] % stage.parts).cast("int"))
                rows = rows.sortWithinPartitions("key", "order")
            else:  # each input is a part
                self._session.conf.set("spark.sql.leafNodeDefaultParallelism", str(len(inputs)))
            arguments = msgspec.json.encode(stage.arguments).decode()
            rows = rows.mapInArrow(StageFunction(stage.function, arguments, self._packages), SCHEMA)
        return rows


def check_answers(address: SparkAddress) -> None:
    """Ask for a connection before the client does, which tries for ten minutes."""
    try:
        socket.create_connection((address.dialled, address.port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise away(address) from error


def remove_folder(folder: Path, *, patience: float = _REMOVE_SECONDS) -> None:
    """Remove what was handed over, also while a task that was interrupted, or runs twice, still writes there.

    What is there after `patience` seconds is logged: the work itself is done.
    """
    deadline = time.monotonic() + patience
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        if time.monotonic() >= deadline:
            _log.warning("rows that were handed over to Spark are still in %s: remove that folder", folder)
            return
        time.sleep(_PAUSE)


def check_version(version: str) -> None:
    """
    Raises:
        MissingPartError: the server's version is too old.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < _LEAST_VERSION:
        least = ".".join(map(str, _LEAST_VERSION))
        raise MissingPartError(
            f"the server of Spark has version {version}, and {least} or later is needed",
            subject="history",
            hint=f"name a server of Spark {least}, or compute without Spark: leave out `history`",
        )


def away(address: SparkAddress) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"Spark does not answer at {address.host}:{address.port}",
        subject="history",
        hint="start its Connect server, or check the URL",
    )
