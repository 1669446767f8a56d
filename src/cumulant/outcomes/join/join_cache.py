"""The join of the prediction log with its labels, stored by file of the log: only what has changed is joined again.

    FOLDER/index       which labels were joined, and of each file of the log where its rows are and how long they hold
    FOLDER/*.arrow     rows of one file of the log with the labels that were known; named by the hash of its content

All of it can be deleted: what is missing or damaged is made again from the log and the labels.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
import polars as pl

from cumulant.core.ids import digest
from cumulant.core.system import atomic_files
from cumulant.outcomes.join.log_rows import HEAD, as_frame, is_referenced, split_refs
from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.labels.batches import IngestedFile, LabelBatches
from cumulant.outcomes.logs import LISTINGS, vanishing_parts_error
from cumulant.ports.log import PartInfo

if TYPE_CHECKING:
    from cumulant.serving.prediction_log.storage.log_reader import Rows as LogRows

_INDEX = "index"
_SUFFIX = ".arrow"


class RowSink(Protocol):
    """Receiver of the joined rows of the files of the log, one after the other."""

    def add(self, number: int, frame: pl.DataFrame, /) -> None:
        """The rows of the file of this number in the order of the log; files come in any order."""


Sink = TypeVar("Sink", bound=RowSink)


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows of a file are: the hash of their content. They hold for moments from `since` on and before
    `until`: no label of theirs becomes known between the two.
    """

    content: str
    since: datetime | None
    until: datetime | None

    def holds(self, at: datetime) -> bool:
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    """`batches`: the batches of labels that were joined. `files`: by the identity of a file of the log."""

    batches: frozenset[str] = frozenset()
    files: dict[str, _Entry] = {}


@dataclass(frozen=True)
class JoinCache:
    """The joined rows of `outcomes`, as `select` makes them of a batch of the join, stored in `folder`.

    The folder belongs to one log, one store of labels and one `select`: the caller names it by all that these depend
    on. `joined` are the parts of the log that were joined at this call.
    """

    outcomes: LabelledLog
    folder: Path
    select: Callable[[pl.DataFrame], pl.DataFrame]
    joined: list[PartInfo] = field(default_factory=list)

    def rows(self, begin: Callable[[], Sink], *, since: date | None, at: datetime) -> Sink:
        """The selected rows of the days from `since` on with what is known of them by `at`, a frame a file of the log.

        `begin` makes what takes them, and what takes them all is returned: where files are merged meanwhile, it is
        begun anew. In memory are the rows of one file.

        Raises:
            StorageError: a file of the log or of the labels cannot be read.
        """
        for _ in range(LISTINGS):
            with contextlib.suppress(FileNotFoundError):  # files were merged since they were listed
                taken = begin()
                self._rows(taken, since, at)
                return taken
        raise vanishing_parts_error(self.outcomes.log)

    def _rows(self, taken: RowSink, since: date | None, at: datetime) -> None:
        from cumulant.serving.prediction_log.storage.log_reader import iterate_files

        before = self._index()
        labels = _Labels(self.outcomes, before.batches)
        known = before.files if labels.only_added else {}
        numbers: dict[str, int] = {}  # by the file of the log
        files: dict[str, _Entry] = {}
        changed: dict[str, tuple[PartInfo, LogRows]] = {}
        for part, read in iterate_files(self.outcomes.log, since=since):
            name = digest([part.key, part.stamp])
            if name in numbers:
                continue
            numbers[name] = len(numbers)
            entry = known.get(name)
            frame = None
            if entry is not None and entry.holds(at) and not labels.news_in(read):
                frame = self._read(entry)
            if entry is None or frame is None:
                changed[name] = (part, read)
                continue
            files[name] = entry
            taken.add(numbers[name], frame)
        for name, entry, frame in self._join(changed, at):
            files[name] = entry
            taken.add(numbers[name], frame)
        after = _Index(batches=labels.batches, files=files)
        if after != before:
            self._replace(after)

    def _join(
        self, files: Mapping[str, tuple[PartInfo, LogRows]], at: datetime
    ) -> Iterator[tuple[str, _Entry, pl.DataFrame]]:
        """The rows of these files of the log, and their entries. Raises FileNotFoundError."""
        if not files:
            return
        with self.outcomes.labels() as labels:
            joined = self.outcomes.join_files(((name, read) for name, (_, read) in files.items()), labels, at)
            for name, parts in groupby(joined, key=itemgetter(0)):
                yield name, *self._stored([(self.select(rows), known) for _, rows, known in parts], at)
        self.joined.extend(part for part, _ in files.values())

    def _stored(self, parts: list[tuple[pl.DataFrame, pl.Series]], at: datetime) -> tuple[_Entry, pl.DataFrame]:
        frame = pl.concat(rows for rows, _ in parts)
        known = pl.concat(times for _, times in parts)
        since, until = known.filter(known <= at).max(), known.filter(known > at).min()
        assert since is None or isinstance(since, datetime)
        assert until is None or isinstance(until, datetime)
        return _Entry(content=self._write(frame), since=since, until=until), frame

    # --- what is stored

    def _index(self) -> _Index:
        content = atomic_files.read_checked(self.folder / _INDEX)
        if content is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.msgpack.decode(content, type=_Index)
        return _Index()

    def _replace(self, index: _Index) -> None:
        """Write the index, and delete the rows that it does not name."""
        named = {f"{entry.content}{_SUFFIX}" for entry in index.files.values()}
        with contextlib.suppress(OSError):
            atomic_files.write_checked(self.folder / _INDEX, msgspec.msgpack.encode(index))
            for path in self.folder.glob(f"*{_SUFFIX}"):
                if path.name not in named:
                    path.unlink(missing_ok=True)

    def _write(self, frame: pl.DataFrame) -> str:
        """The hash of the frame. One that cannot be written is joined again by the next call."""
        buffer = io.BytesIO()
        frame.write_ipc(buffer, compression="lz4")
        content = buffer.getvalue()
        name = _hash(content)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_files.replace_file(self.folder / f"{name}{_SUFFIX}", content)
        return name

    def _read(self, entry: _Entry) -> pl.DataFrame | None:
        try:
            content = (self.folder / f"{entry.content}{_SUFFIX}").read_bytes()
        except OSError:
            return None
        return pl.read_ipc(io.BytesIO(content)) if _hash(content) == entry.content else None


@dataclass(frozen=True)
class _Labels:
    """The labels as they are now, against the batches that were joined `before`."""

    outcomes: LabelledLog
    before: frozenset[str]

    @cached_property
    def _batches(self) -> dict[str, tuple[str, frozenset[str]]]:
        """By the name of a batch its identity, and those of the batches that were merged into it."""
        batches = LabelBatches(self.outcomes.logs.labels)
        ingested = {name: batches.find(name) for name in batches.names}
        return {
            name: (name, frozenset())
            if batch is None
            else (
                _batch_identity(batch),
                frozenset(_batch_identity(part) for part in batch.covers if part.content in batch.made_of),
            )
            for name, batch in ingested.items()
        }

    @cached_property
    def batches(self) -> frozenset[str]:
        return frozenset(identity for identity, _ in self._batches.values())

    @cached_property
    def only_added(self) -> bool:
        """Whether all that was joined before is still there, be it merged."""
        return self.before <= self.batches.union(*(merged for _, merged in self._batches.values()))

    @cached_property
    def _news(self) -> pl.Expr | None:
        """Whether a row of the log may be named by a label that came since.

        Raises:
            FileNotFoundError: a batch was merged and deleted since it was listed: `rows` lists again.
        """
        added = [
            name
            for name, (identity, merged) in self._batches.items()
            if identity not in self.before and not (merged and merged <= self.before)
        ]
        if not added:
            return None
        facts = self.outcomes.label_facts(added)
        return is_referenced(*split_refs(facts["ref"].unique()))

    def news_in(self, read: LogRows) -> bool:
        """Whether a label that came since may be for a row of a file of the log."""
        news = self._news
        return news is not None and any(as_frame(head).filter(news).height for head in read(HEAD))


def _batch_identity(batch: IngestedFile) -> str:
    # What was deleted and ingested again may have other labels, under the same name.
    return f"{batch.content} {batch.received.isoformat()}"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
