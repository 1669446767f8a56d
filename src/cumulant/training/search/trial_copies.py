"""Copies of finished trials in an object store, so that a killed search resumes on another machine."""

from __future__ import annotations

import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.ids import short
from cumulant.core.system.atomic_files import atomic_draft
from cumulant.ports.objects import ObjectStore
from cumulant.training.records import TrialRecord

_TRIAL, _ANSWERS = "trial", "answers"


class TrialCopies:
    """The copies of one search: an object per finished trial, and one for its answers while they may be needed.

    They are written by a thread in the order of the calls: a search does not wait for the store, and the copies are
    the trials of one moment, also where the store fails for a while.
    """

    def __init__(self, objects: ObjectStore, prefix: str, identity: str) -> None:
        self._objects = objects
        self._prefix = f"{prefix}/{short(identity)}"
        self._pool = ThreadPoolExecutor(1, "cumulant-trial-copies")
        self._waiting: deque[tuple[TrialRecord, Path | None]] = deque()
        self._dropped: set[int] = set()

    def restore(self, present: set[int], place: Path) -> list[TrialRecord]:
        """The trials that are not `present`, by number; their answers are put into `place`, as `trial-N.npy`.

        Raises:
            CumulantError: the store does not answer.
        """
        answers = {self._number(key): key for key in self._objects.keys(f"{self._prefix}/{_ANSWERS}/")}
        records = []
        for key in sorted(self._objects.keys(f"{self._prefix}/{_TRIAL}/")):
            if (number := self._number(key)) not in present:
                if number in answers:
                    with (
                        atomic_draft(place / f"trial-{number}.npy", durable=False) as draft,
                        self._objects.open(answers[number]) as copy,
                    ):
                        shutil.copyfile(copy, draft)
                with self._objects.open(key) as copy:
                    records.append(msgspec.json.decode(copy.read_bytes(), type=TrialRecord))
        return records

    def save(self, record: TrialRecord, answers: Path | None) -> None:
        self._waiting.append((record, answers))
        self._pool.submit(self._save_waiting)

    def drop(self, numbers: set[int]) -> None:
        """Delete the answers of trials, once the trials that made them needless are stored."""
        self._pool.submit(self._drop, numbers)

    def close(self) -> None:
        """Wait for what is being written."""
        self._pool.shutdown()

    def _save_waiting(self) -> None:
        with suppress(CumulantError, OSError):  # tried again with the next trial; the folder has them all
            while self._waiting:
                record, answers = self._waiting[0]
                # The answers first: a trial that is found has them, or does not need them any more.
                if answers is not None and answers.exists():
                    self._objects.put(self._key(_ANSWERS, record.number), answers)
                self._put(record)
                self._waiting.popleft()

    def _put(self, record: TrialRecord) -> None:
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / "trial.json"
            file.write_bytes(msgspec.json.encode(record))
            self._objects.put(self._key(_TRIAL, record.number), file)

    def _drop(self, numbers: set[int]) -> None:
        if self._waiting:
            return
        with suppress(CumulantError):
            for number in sorted(numbers - self._dropped):
                self._objects.delete(self._key(_ANSWERS, number))
                self._dropped.add(number)

    def _key(self, kind: str, number: int) -> str:
        return f"{self._prefix}/{kind}/{number:06}"

    @staticmethod
    def _number(key: str) -> int:
        return int(key.rpartition("/")[2])
