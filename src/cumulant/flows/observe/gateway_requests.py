"""The requests of a project's gateways, counted by minute: each part of their log is read once.

The counts are kept in the state folder with the cursor up to which they go, so that commands go on from there. They
reach back further than the log, of which a gateway keeps the newest files alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import StorageError
from cumulant.core.system.atomic_files import read_checked, storage_errors, write_checked
from cumulant.flows.traffic.clients import exchanges_of
from cumulant.monitoring.request_counts import RequestHistory, RequestMinutes

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cumulant.project.project import Project

#: exchanges that are read at once
_BATCH = 50_000
#: what is kept where no objective names a longer window
_KEPT = timedelta(days=30)
#: windows of hours with requests that are kept: an hour of a clock that was wrong drops one that is still needed only
#: after as many
_WINDOWS = 2
#: exchanges since the file was written, and seconds, from which on it is written again
_MANY, _LATER = 5_000, 60.0
_FOLDER, _FILE = "observe", "gateway_requests.msgpack"
#: of the file; another one is not read
_FORMAT = 1


class _StoredCounts(msgspec.Struct, frozen=True, kw_only=True):
    """`within`: microseconds above which an answer counts as slow; other counts are made anew."""

    format: int
    model: str
    within: int | None
    cursor: str
    history: RequestHistory


class GatewayRequests:
    """Of one project. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minutes: RequestMinutes | None = None
        self._cursor = ""
        #: the bound of latency by which `_minutes` are counted
        self._within: timedelta | None = None
        self._unsaved, self._saved_at, self._read_at = 0, 0.0, 0.0

    @contextmanager
    def counted(self, project: Project, now: datetime) -> Iterator[RequestMinutes]:
        """The counts with all that the log has `now`; nobody changes them while the block lasts.

        Raises:
            StorageError, EngineUnavailableError: the log cannot be read.
        """
        with self._lock:
            yield self._update(project, now)

    def _update(self, project: Project, now: datetime) -> RequestMinutes:
        objectives = project.policies.objectives
        within = next((each.within for each in objectives if each.within is not None), None)
        path = project.state / _FOLDER / _FILE
        if self._minutes is None or within != self._within:
            self._minutes, self._cursor = _load(path, project.name, within)
            self._within, self._unsaved = within, 0
        elif time.monotonic() - self._read_at > _LATER:  # another process may have read what the log no longer has
            stored, cursor = _load(path, project.name, within)
            if max(stored.minutes, default=0) > max(self._minutes.minutes, default=0):
                self._minutes, self._cursor, self._unsaved = stored, cursor, 0
        source = exchanges_of(project)
        while True:
            exchanges, self._cursor = source.exchanges(self._cursor, limit=_BATCH)
            self._minutes.add(exchanges, now)
            self._unsaved += len(exchanges)
            if len(exchanges) < _BATCH:
                break
        self._read_at = time.monotonic()
        self._minutes.keep(_WINDOWS * max((each.window for each in objectives), default=_KEPT) // timedelta(hours=1))
        if self._unsaved >= _MANY or (self._unsaved and time.monotonic() - self._saved_at > _LATER):
            self._save(path, project.name, within, self._minutes)
        return self._minutes

    def _save(self, path: Path, model: str, within: timedelta | None, minutes: RequestMinutes) -> None:
        """Nothing on a disk that cannot be written: the next process reads the log again."""
        stored = _StoredCounts(
            format=_FORMAT, model=model, within=_micros(within), cursor=self._cursor, history=minutes.history
        )
        with suppress(StorageError), storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_checked(path, msgspec.msgpack.encode(stored))
        self._unsaved, self._saved_at = 0, time.monotonic()


def _load(path: Path, model: str, within: timedelta | None) -> tuple[RequestMinutes, str]:
    """The stored counts and their cursor; none where they are missing, damaged or of other settings."""
    content = read_checked(path)
    with suppress(msgspec.MsgspecError):
        if content is not None:
            stored = msgspec.msgpack.decode(content, type=_StoredCounts)
            if (stored.format, stored.model, stored.within) == (_FORMAT, model, _micros(within)):
                return RequestMinutes(model, within=within, history=stored.history), stored.cursor
    return RequestMinutes(model, within=within), ""


def _micros(span: timedelta | None) -> int | None:
    return None if span is None else span // timedelta(microseconds=1)
