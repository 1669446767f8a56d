"""Upload of a gateway's exchanges to the log that all machines read, each exchange once.

What a part holds is stored before it is uploaded: killed at any point and begun again, the same part is uploaded under
the same name, of which a log keeps the first content. Where the gateway removed some of it meanwhile, since the log was
away for long, what remains gets another name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.system.json_files import read_json
from cumulant.core.traffic import Exchange
from cumulant.flows.stack.identity import Home, home_of
from cumulant.ports.log import Log, PartInfo
from cumulant.ports.traffic import ExchangeSource

_FILE = "upload.json"
#: exchanges of a part at most
_MOST = 50_000
#: seconds between two uploads, between two upkeeps, and the age and bytes of parts that are merged
_EVERY, _UPKEEP = 2.0, 60.0
_MERGE_AGE, _MERGE_BYTES = 300.0, 64 * 1024 * 1024


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far the exchanges of this machine are uploaded.

    Attributes:
        home: the folder and machine whose uploads these are; None: written by an earlier version.
        count: of the part that is being uploaded, of `day`; 0: there is none.
        first: time of its first exchange; None: written by an earlier version.
        until: the cursor after it.
    """

    life: str
    home: Home | None = None
    cursor: str = ""
    number: int = 0
    count: int = 0
    day: date | None = None
    first: int | None = None
    until: str = ""

    def at(self, cursor: str, number: int) -> Position:
        """Without a part that is being uploaded."""
        return Position(life=self.life, home=self.home, cursor=cursor, number=number)

    def begun(self, exchanges: Sequence[Exchange], day: date, until: str) -> Position:
        return msgspec.structs.replace(self, count=len(exchanges), day=day, first=exchanges[0].time, until=until)

    def is_of(self, exchanges: Sequence[Exchange]) -> bool:
        """Whether the part that is being uploaded holds these. The oldest ones are removed first."""
        return len(exchanges) == self.count and self.first in (None, exchanges[0].time)


class ExchangeUpload:
    """Uploads the exchanges of `source`; the folder `place` has the position. One at a time per machine."""

    def __init__(
        self,
        source: ExchangeSource,
        log: Log,
        place: Path,
        *,
        host: str,
        keep: timedelta | None = None,
        report: Callable[[str], object] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._source, self._log, self._path = source, log, place / _FILE
        self._host, self._keep, self._say, self._clock = host, keep, report, clock or SystemClock()
        self._due = self._last = time.monotonic()

    def run(self, ended: Callable[[float], bool]) -> None:
        """Upload every two seconds until `ended`, which waits so many seconds, returns true; then what is left."""
        self._try(self._position)  # before a copied gateway answers many requests
        over = False
        while not over:
            over = ended(_EVERY)
            self._try(self._upload_all if over else self._upload_and_maintain)

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except CumulantError as error:
            self._say(f"exchanges are not uploaded, and wait: {error.message}")

    def _upload_all(self) -> None:
        while self.upload():
            pass

    def _upload_and_maintain(self) -> None:
        self._upload_all()
        self._upkeep()

    def upload(self) -> int:
        """Upload one part, and return how many exchanges it has; 0 where there is nothing new.

        Raises:
            StorageError, EngineUnavailableError: the log cannot be written, or this machine's folder.
        """
        position = self._position()
        exchanges, cursor = self._source.exchanges(position.cursor, limit=position.count or _MOST)
        if position.count and not position.is_of(exchanges):
            position = self._leave_part(position)
            exchanges, cursor = self._source.exchanges(position.cursor, limit=_MOST)
        if not exchanges:
            return 0
        if not position.count:
            position = position.begun(exchanges, self._clock.now().date(), cursor)
            self._write(position)
        self._append(position, exchanges)
        self._write(position.at(cursor, position.number + position.count))
        return len(exchanges)

    def _leave_part(self, position: Position) -> Position:
        """A new life after a part that the gateway removed some of; or before it, where the log does not have the part.

        A store may yet take an upload that did not answer, so that no other part may get its name.
        """
        day, first, last = position.day, position.number + 1, position.number + position.count
        parts = self._log.parts(day) if day is not None else []
        uploaded = any(part.life == position.life and part.first <= first and last <= part.last for part in parts)
        cursor = position.until if uploaded else position.cursor
        position = Position(life=self._new_life(), home=position.home, cursor=cursor)
        self._write(position)
        return position

    def _position(self) -> Position:
        """The stored position, if it is of this folder on this machine.

        That of a copy is the original's, under whose names the log has the original's parts. What the files of a copy
        hold is the original's too: only what comes after it is uploaded from here, under names of its own.
        """
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        home = msgspec.structs.replace(home_of(self._path.parent), host=self._host)
        stored = read_json(self._path, Position)
        if stored is None:
            return Position(life=self._new_life(), home=home)
        if _is_own(stored, home):
            return msgspec.structs.replace(stored, home=home)
        position = Position(life=self._new_life(), home=home, cursor=self._end(stored.cursor))
        self._write(position)
        self._say("this folder is a copy, or its machine has another name: earlier exchanges are not uploaded from it")
        return position

    def _new_life(self) -> str:
        return f"{self._host}-{uuid.uuid4().hex[:12]}"

    def _end(self, cursor: str) -> str:
        """The cursor after all exchanges that there are now."""
        count = _MOST
        while count == _MOST:
            exchanges, cursor = self._source.exchanges(cursor, limit=_MOST)
            count = len(exchanges)
        return cursor

    def _append(self, position: Position, exchanges: list[Exchange]) -> None:
        from cumulant.flows.traffic.exchange_parts import write_part

        day = position.day or self._clock.now().date()
        part = PartInfo(day, position.life, position.number + 1, position.number + position.count)
        with self._log.append(part) as stream:
            write_part(stream, exchanges)

    def _write(self, position: Position) -> None:
        with storage_errors(self._path):
            replace_file(self._path, msgspec.json.encode(position), private=True)

    def _upkeep(self) -> None:
        """Merge small parts and delete old days, once a minute; of the machines, one at a time does so."""
        now = time.monotonic()
        if now < self._due:
            return
        from cumulant.flows.traffic.exchange_parts import SCHEMA
        from cumulant.serving.prediction_log.storage.retention import upkeep

        passed, self._last, self._due = now - self._last, now, now + _UPKEEP
        upkeep(
            self._log,
            keep=self._keep,
            file_size=_MERGE_BYTES,
            file_age=_MERGE_AGE,
            steady=passed,
            say=self._say,
            schema=SCHEMA,
            name="the log of exchanges",
        )


def _is_own(position: Position, home: Home) -> bool:
    if position.home is None:
        return position.life.rpartition("-")[0] == home.host
    same = position.home.is_folder(home) or position.home.is_moved(home)
    return same and position.home.host == home.host
