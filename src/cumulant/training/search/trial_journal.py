"""Finished trials on disk, so that a killed search resumes where it was.

One line a trial, appended only when the trial is done and its predictions are stored. A trial that was under way
when the process died has no line: it is done again, with the same parameters, because these depend on the
finished trials and on its number only (`proposals`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import IntegrityError, StorageError
from cumulant.core.system.atomic_files import atomic_draft
from cumulant.ports.objects import ObjectStore
from cumulant.training.records import TrialRecord
from cumulant.training.search.trial_copies import TrialCopies

_FILE = "trials.jsonl"


@dataclass(frozen=True)
class CopiedFolder:
    """A folder of one search, whose trials are also kept in `objects` below `prefix`."""

    path: Path
    objects: ObjectStore
    prefix: str

    def copies(self, identity: str) -> TrialCopies:
        return TrialCopies(self.objects, self.prefix, identity)


class TrialJournal:
    """The finished trials of one search, in a folder. A folder that belongs to another search is emptied.

    Of a `CopiedFolder` the trials are in an object store too; those that another machine finished are added.
    """

    def __init__(self, folder: Path | CopiedFolder, identity: str) -> None:
        self._copies = folder.copies(identity) if isinstance(folder, CopiedFolder) else None
        self._folder = folder.path if isinstance(folder, CopiedFolder) else folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.records = self._resume(identity)
            copied = [] if self._copies is None else self._synchronize(self._copies)
            self._stream = (self._folder / _FILE).open("ab")
            for record in copied:
                self._write(record)
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def _synchronize(self, copies: TrialCopies) -> list[TrialRecord]:
        """The trials of other machines; those that only this one has are copied."""
        copied = copies.restore({record.number for record in self.records}, self._folder)
        for record in self.records:
            path = self._path(record.number)
            copies.save(record, path if path.exists() else None)
        return copied

    def _resume(self, identity: str) -> list[TrialRecord]:
        path = self._folder / _FILE
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        whole = lines[:-1]  # a line without its end was being written when the process died
        if not whole or whole[0].decode(errors="replace") != identity:
            path.write_bytes(identity.encode() + b"\n")
            return []
        records = self._records(whole[1:])
        if lines[-1] or len(records) < len(whole) - 1:
            path.write_bytes(b"\n".join(whole[: len(records) + 1]) + b"\n")
        return records

    def _records(self, lines: list[bytes]) -> list[TrialRecord]:
        """The trials of whole lines. A last line that is garbled was half-written (a power cut may leave zeros there).

        Raises:
            IntegrityError: a garbled line before the last, which no ending of a process leaves.
        """
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(msgspec.json.decode(line, type=TrialRecord))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                if number == len(lines):
                    break
                raise IntegrityError(
                    f"line {number + 1} of the trials of this search is no trial, and others follow it",
                    subject=f"{self._folder.name}/{_FILE}",
                    hint="remove that folder under .cumulant/search: the search then begins anew, nothing else is lost",
                ) from error
        return records

    def append(self, record: TrialRecord, answers: NDArray[np.float64] | None) -> None:
        """Keep a finished trial, with its out-of-fold answers where they may be needed."""
        try:
            if answers is not None:
                self._store(record.number, answers)
            self._write(record)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        if self._copies is not None:
            self._copies.save(record, None if answers is None else self._path(record.number))

    def _write(self, record: TrialRecord) -> None:
        self._stream.write(msgspec.json.encode(record) + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.records.append(record)

    def answers(self, number: int) -> NDArray[np.float64]:
        """The out-of-fold answers of a trial."""
        return np.load(self._path(number), allow_pickle=False).astype(np.float64)  # type: ignore[no-any-return]

    def keep(self, numbers: set[int]) -> None:
        """Drop the answers of all other trials."""
        needless = {record.number for record in self.records} - numbers
        for number in needless:
            self._path(number).unlink(missing_ok=True)
        if self._copies is not None:
            self._copies.drop(needless)

    def _store(self, number: int, answers: NDArray[np.float64]) -> None:
        path = self._path(number)
        with atomic_draft(path, durable=False) as draft, draft.open("wb") as stream:
            np.save(stream, answers.astype(np.float32), allow_pickle=False)

    def _path(self, number: int) -> Path:
        return self._folder / f"trial-{number}.npy"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if self._copies is not None:
            self._copies.close()


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the trials of this search cannot be written to {folder.name}: {error.strerror}",
        subject=folder.name,
        hint="free some space, or make the folder writable; run again to go on",
    )
