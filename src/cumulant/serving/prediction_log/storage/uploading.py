"""Upload of sealed parts from the log's folder on this machine to the log that readers read.

A part is uploaded under its own name, of which the log keeps the first content: killed at any point and begun again,
nothing is lost or twice there. It stays here for some minutes, in which a worker may send its rows again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import date

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.ports.log import Log, LogCursor, split_covered
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.log_folder import WorkerLife
from cumulant.serving.prediction_log.storage.recovery import AGAIN_SECONDS


class LogUpload:
    """Parts and states of workers of the log `spool`, which are uploaded to `target`.

    `failing`: whether the last call could not upload; `say` reports the first failure and the end of it.
    """

    def __init__(self, spool: Log, target: Log, say: Callable[[str], object]) -> None:
        self.failing = False
        self._spool, self._target, self._say = spool, target, say
        self._uploaded = LogCursor()
        self._days: set[date] = set()
        self._lives: dict[str, bytes] = {}

    def run(self) -> None:
        """Upload what is new. Of processes that share the spool, one at a time does so.

        What fails is reported, and tried again by the next call.
        """
        try:
            with self._spool.maintenance() as mine:
                if mine:
                    self._upload()
        except CumulantError as error:
            if not self.failing:
                self._say(
                    f"the prediction log cannot be uploaded to {self._target.location}: {error.message}; its parts wait"
                    f" in {self._spool.location}, and are uploaded once it answers\n"
                )
            self.failing = True
            return
        except FileNotFoundError:  # merged meanwhile by another process; the next call lists it
            return
        if self.failing:
            self._say(f"the prediction log is uploaded again to {self._target.location}\n")
        self.failing = False

    def _upload(self) -> None:
        # Rows of a worker that has ended are sealed before its end is written here: so they are before its end there.
        lives = log_folder.read_lives(self._spool)
        days = self._spool.days()
        self._uploaded.forget_before(days[0] if days else None)
        for day in days:
            self._upload_day(day)
        for life in lives:
            self._write_life(life)

    def _upload_day(self, day: date) -> None:
        current, covered = split_covered(self._spool.parts(day))
        if not current:
            return
        if day not in self._days:  # an earlier process may have been killed between an upload and the deletion
            for part in self._target.parts(day):
                self._uploaded.add(part)
            self._days.add(day)
        for part in current:
            if not self._uploaded.includes(part):
                with self._spool.open(part) as source, self._target.append(part) as stream:
                    shutil.copyfileobj(source, stream)
                self._uploaded.add(part)
        old = [part for part in current if abs(time.time() - part.modified) >= AGAIN_SECONDS]
        self._spool.delete([*covered, *old])

    def _write_life(self, life: WorkerLife) -> None:
        content = msgspec.json.encode(life)
        if self._lives.get(life.worker) != content:
            known = log_folder.read_life(self._target, life.worker)
            if known is not None:  # the retention there knows which rows were deleted
                life.forgotten = known.forgotten
            if known is None or life.last is not None:
                log_folder.write_life(self._target, life)
            self._lives[life.worker] = content
        if life.last is not None:
            log_folder.forget_life(self._spool, life.worker)
            self._lives.pop(life.worker, None)
