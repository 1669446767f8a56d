"""Work beside the log process, on threads: recovery of other journals, compaction and retention, upload of parts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from cumulant.core.errors import CumulantError
from cumulant.ports.log import Log
from cumulant.ports.plugins import Drivers
from cumulant.serving.prediction_log.storage.recovery import recover
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.serving.prediction_log.storage.uploading import LogUpload

#: a younger journal of another process is left to its own server's next one, whose workers may send its rows again
_JOURNAL_SECONDS = 60.0
_UPKEEP_SECONDS = 15.0
#: of a log elsewhere, whose lists are requests
_REMOTE_UPKEEP_SECONDS = 60.0
#: in which the last parts are uploaded when the process ends
_UPLOAD_SECONDS = 20.0


class LogMaintenance:
    """Maintenance of the log in `folder`, and of the one at `upload` where parts go there.

    Attributes:
        log: the log in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        upload: str | None,
        *,
        keep: timedelta | None,
        file_size: int,
        file_age: float,
        say: Callable[[str], object],
    ) -> None:
        drivers = Drivers.installed()
        self.log: Log = drivers.client(f"file://{folder.absolute()}", "log")
        self._folder, self._keep, self._file_size, self._file_age, self._say = folder, keep, file_size, file_age, say
        self._target: Log = self.log
        self._upload: LogUpload | None = None
        if upload is not None:
            self._target = drivers.client(upload, "log", secrets=lambda: drivers.client("env://", "secrets"))
            self._upload = LogUpload(self.log, self._target, say)
        self._upkeep: threading.Thread | None = None
        self._uploading: threading.Thread | None = None
        self._due = self._started = time.monotonic()

    def start_upkeep(self, now: float) -> bool:
        """Start compaction and retention where they are due, at `now` of a monotonic clock; whether they were."""
        if now < self._due or (self._upkeep is not None and self._upkeep.is_alive()):
            return False
        self._due = now + (_UPKEEP_SECONDS if self._upload is None else _REMOTE_UPKEEP_SECONDS)
        # A thread: merging is a second of work of libraries that let the caller go on.
        self._upkeep = threading.Thread(target=self._run_upkeep, daemon=True)
        self._upkeep.start()
        return True

    def _run_upkeep(self) -> None:
        before, self._started = self._started, time.monotonic()
        with contextlib.suppress(OSError):  # a full disk is reported where rows are lost; upkeep runs again
            recover(self._folder, age=_JOURNAL_SECONDS, say=self._say)
        # Parts that wait for their upload are not merged: some of a run may be there already, and merged with others.
        if self._upload is not None and self._upload.failing:
            return
        with contextlib.suppress(OSError, CumulantError):
            upkeep(
                self._target,
                keep=self._keep,
                file_size=self._file_size,
                file_age=self._file_age,
                steady=self._started - before,
                say=self._say,
            )

    def start_upload(self) -> None:
        """Upload sealed parts, on a thread that may wait for the store."""
        if self._upload is not None and (self._uploading is None or not self._uploading.is_alive()):
            self._uploading = threading.Thread(target=self._upload.run, daemon=True)
            self._uploading.start()

    def finish(self) -> None:
        """Upload the last parts, and wait for what runs. What is left is done by the next process."""
        for _ in range(2):  # one that runs may have listed the parts before the last ones came
            if self._uploading is not None:
                self._uploading.join(timeout=_UPLOAD_SECONDS)
            self.start_upload()
        if self._uploading is not None:
            self._uploading.join(timeout=_UPLOAD_SECONDS)
        if self._upkeep is not None:
            self._upkeep.join(timeout=30)
