"""Whether the servers and stores that an environment names answer, each within a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, NotFoundError, TerminalError
from cumulant.project.endpoints import KEYS
from cumulant.project.file.text_values import masked

if TYPE_CHECKING:
    from cumulant.ports.compute import HistoryEngine, StreamEngine
    from cumulant.project.project import Project

#: seconds; each driver gives up earlier by itself where nobody answers
LIMIT = 15.0
#: times the limit: on Spark a worker of Python starts, which imports Polars
_LONGER = {"history": 3}


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one key of the environment. `error` is None where it answers."""

    setting: str
    url: str
    error: CumulantError | None = None


def remote_settings(project: Project) -> dict[str, str]:
    """The keys of the environment whose stores are on no disk of this machine, each with its URL as it is printed."""
    return {KEYS.get(port, port): masked(project.endpoints.of(port)) for port in _remote(project)}


def check_connections(project: Project, *, limit: float = LIMIT) -> list[Connection]:
    """Read from every store and engine that is elsewhere, from all at once. Nothing is written to stores; workers of
    `history` write, rename and delete one file in its staging folder, as they do with features.

    One that does not answer in time is left to itself, on a thread that ends with the process.
    """
    began = time.monotonic()
    attempts = {port: _Attempt(lambda use=use: use(project)) for port, use in _remote(project).items()}  # type: ignore[misc]
    results: dict[str, Connection] = {}
    for port, attempt in attempts.items():
        longest = limit * _LONGER.get(port, 1)
        error = attempt.wait(began + longest - time.monotonic(), longest)
        setting = KEYS.get(port, port)
        known = results.get(setting)
        if known is None or known.error is None:  # the first fault of tables and objects
            results[setting] = Connection(setting=setting, url=masked(project.endpoints.of(port)), error=error)
    return list(results.values())


class _Attempt:
    def __init__(self, use: Callable[[], object]) -> None:
        self._use = use
        self._answered = False
        self._fault: CumulantError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._use()
            self._answered = True
        except CumulantError as error:
            self._fault = error

    def wait(self, seconds: float, limit: float) -> CumulantError | None:
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            return EngineUnavailableError(
                f"it does not answer within {limit:g} s", hint="check its address, the network and its load"
            )
        if self._fault is None and not self._answered:
            return TerminalError("its client failed in a way that it should not", hint="see the traceback above")
        return self._fault


def _remote(project: Project) -> dict[str, Callable[[Project], object]]:
    uses: dict[str, Callable[[Project], object]] = {
        "journal": lambda opened: opened.journal().head(),
        "tables": lambda opened: opened.tables().find("doctor"),
        "objects": lambda opened: opened.objects().find("doctor"),
        "log": lambda opened: opened.log().days(),
        "online": lambda opened: opened.online().tables(),
        "registry": _resolve,
    }
    if project.endpoints.schemas is not None:
        uses["schemas"] = _read_schema
    if project.reads_streams:
        uses["streams"] = _read_topics
    remote = {port: use for port, use in uses.items() if project.drivers.path(project.endpoints.of(port)) is None}
    if project.endpoints.history is not None:
        remote["history"] = lambda opened: _run_worker(opened.history())
    if project.endpoints.stream_engine is not None:
        remote["stream_engine"] = lambda opened: _check_engine(opened.stream_engine())
    return remote


def _run_worker(engine: HistoryEngine | None) -> None:
    """A session begins with a task of its workers, which says whether they have the packages and the folder."""
    assert engine is not None
    with engine.session():
        pass


def _check_engine(engine: StreamEngine | None) -> None:
    assert engine is not None
    engine.check()


def _read_topics(project: Project) -> None:
    for spec in project.spec.data.values():
        if spec.stream is not None:
            project.streams().partitions(spec.stream)


def _read_schema(project: Project) -> None:
    with suppress(NotFoundError):  # numbers begin at one, and the first may be gone
        project.schemas().schema(1, "avro")


def _resolve(project: Project) -> None:
    with suppress(NotFoundError):  # a model that has no version yet
        project.registry().resolve(project.name)
