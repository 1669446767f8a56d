"""A snapshot: the accepted rows of a source at one moment, immutable, as a manifest of stored parts."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.ids import digest
from cumulant.core.plan import Corrections, DType, Field, KnownAt, Source
from cumulant.core.refs import TableRef
from cumulant.data.profile import Profile
from cumulant.data.row_columns import ROW
from cumulant.data.rules.verdict_spec import Severity
from cumulant.data.spec import SourceSpec

if TYPE_CHECKING:
    import polars as pl

    from cumulant.ports.tables import TableStore

#: how files are read; another number reads them all again
READING = 2
#: separates the name of a pack from the place of a file in it
PACKED = "#"
ChangeKind = Literal["added", "removed", "widened", "narrowed", "renamed"]
#: (from, to) where `to` holds every value of `from`
WIDER: frozenset[tuple[DType, DType]] = frozenset(
    {("bool", "int"), ("bool", "float"), ("int", "float"), ("date", "time")}
)


class RowRange(msgspec.Struct, frozen=True):
    """Rows of a stored table: all of them, or `rows` from `first` on, where it holds those of several files."""

    key: str
    rows: int
    bytes: int
    first: int | None = None

    def scan(self, tables: TableStore) -> pl.LazyFrame:
        """The rows in the order written."""
        rows = tables.scan(self.key)
        return rows if self.first is None else rows.slice(self.first, self.rows)


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the source. A file whose `stamp` is the same is not read again.

    `parts`: as read and, where rows fell to rules across files, as accepted. `partition`: columns and values that the
    names of its folders hold. `arrived`: the run that accepted its first row; `arrivals`: of each row where they
    differ.
    """

    url: str
    sha256: str
    bytes: int
    rows: int
    stamp: str
    parts: tuple[str, ...]
    partition: tuple[tuple[str, str | None], ...] = ()
    arrived: datetime | None = None
    arrivals: TableRef | None = None

    @property
    def content(self) -> str:
        """The digest of all that its rows are made of."""
        return content_digest(self.sha256, self.partition)


class UnreadableFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the source that could not be read, and why. `memory`: the limit that was declared then."""

    url: str
    sha256: str
    bytes: int
    stamp: str
    reason: str
    partition: tuple[tuple[str, str | None], ...] = ()
    memory: str | None = None

    @property
    def content(self) -> str:
        """The digest of its bytes and partition."""
        return content_digest(self.sha256, self.partition)


def pack_name(part: str) -> str:
    """The name under which a part is stored: of a file in a pack, the pack's."""
    return part.partition(PACKED)[0]


def content_digest(sha256: str, partition: tuple[tuple[str, str | None], ...]) -> str:
    return digest([sha256, partition]) if partition else sha256


def frame_digest(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's content and column types."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="uncompressed")
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One rule against all rows. A row that fails several rules counts in each; it is stored once.

    `kind`: `row` (failing rows go to quarantine) or `table` (the source passes or not as a whole).
    """

    rule: str
    column: str | None
    kind: Literal["row", "table"]
    failed: int
    share: float
    text: str
    passed: bool
    severity: Severity = "fail"


class BatchCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that a batch breaks: `failed` of its `rows`, above the share `limit` (for row counts a number)."""

    batch: str
    rule: str
    column: str | None
    severity: Severity
    failed: int
    rows: int
    limit: float | None
    text: str


class BatchSize(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was accepted: its checked rows, those refused, and nulls among the others by column."""

    rows: int
    refused: int
    nulls: dict[str, int] = {}


class SchemaChange(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of columns against the last accepted snapshot; `to` is a type, or a column's new name.

    `others`: the number of further files that differ so. `used_by`: what uses a column that is gone, narrowed or
    renamed; `unused`: nothing does.
    """

    kind: ChangeKind
    column: str
    before: str | None = None
    to: str | None = None
    file: str | None = None
    refused: bool = False
    used_by: str | None = None
    unused: bool = False
    others: int = 0


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """Effect sizes of the change of one column's distribution.

    `distance`: Jensen-Shannon (base 2, 0 equal to 1 disjoint), nulls counted as a value; `psi`: population stability
    index over the same bins; shares of nulls from 0 to 1.
    """

    column: str
    distance: float
    psi: float
    nulls_before: float
    nulls: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest. `id` is the digest of the files' hashes, the declaration and the code of `prepare`.

    Always: rows_in == rows_passed + rows_quarantined + rows_dropped (by `prepare`).
    """

    id: str
    source: str
    declaration: str
    parts: tuple[RowRange, ...]
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    event_time: str | None
    known: dict[str, KnownAt]
    files: tuple[SourceFile, ...]
    rows_in: int
    rows_passed: int
    rows_quarantined: int
    rows_dropped: int
    quarantine: TableRef | None
    #: of the passed rows, with `on_repeat: latest`: when each is in force, where it is not always; and how many are not
    #: now: corrected or deleted ones, those that are a row once more, and deletions themselves
    versions: TableRef | None = None
    rows_superseded: int = 0
    rows_repeated: int = 0
    rows_deletions: int = 0
    checks: tuple[CheckResult, ...]
    #: what the rows that were read for the first time break, by file and period
    batch_checks: tuple[BatchCheck, ...] = ()
    #: the latest batches, oldest first: new files (`file`), and rows added to a file (`added`)
    batches: dict[str, tuple[BatchSize, ...]] = {}
    changes: tuple[SchemaChange, ...] = ()
    shifts: tuple[Shift, ...] = ()
    #: requirements of the source's contract file that are not checked
    unchecked: tuple[str, ...] = ()
    #: files that could not be read, and are no part of it
    unreadable: tuple[UnreadableFile, ...] = ()
    #: doubts about its files, though it is accepted
    warnings: tuple[str, ...] = ()
    profile: Profile
    #: stored bytes of the parts, and what the same rows would take as CSV (measured on a sample)
    bytes: int
    csv_bytes: int
    accepted: datetime
    #: files processed this time; all others reused their part
    processed: tuple[str, ...] = ()
    #: rules with severity `warn` that the source as a whole breaks
    warned: tuple[str, ...] = ()
    #: stored lists of its files, where its record does not hold them
    file_lists: tuple[TableRef, ...] = ()
    #: the names under which its parts are stored; empty in a record that is older
    part_names: tuple[str, ...] = ()
    #: the column with the subject of each row, such as a customer; personal columns are marked in the fields
    subject: str | None = None
    #: why it was not accepted; empty for an accepted snapshot
    breaches: tuple[str, ...] = ()

    @property
    def rows_current(self) -> int:
        """The passed rows that are in force now."""
        return self.rows_passed - self.rows_superseded - self.rows_repeated - self.rows_deletions


def source_of(snapshot: Snapshot, spec: SourceSpec | None = None) -> Source:
    """The snapshot's source for a feature plan; with `spec`, also how later rows correct earlier ones.

    Raises:
        DataError: the column that marks deletions does not hold values of the declared kind.
    """
    corrections: Corrections | msgspec.UnsetType = msgspec.UNSET
    if spec is not None and spec.on_repeat == "latest":
        from cumulant.data.deletions import corrections_of

        corrections = corrections_of(snapshot.fields, spec, snapshot.source)
    return Source(
        name=snapshot.source,
        key=snapshot.key,
        event_time=snapshot.event_time,
        fields=snapshot.fields,
        known=snapshot.known,
        corrections=corrections,
        subject=msgspec.UNSET if snapshot.subject is None else snapshot.subject,
    )


def scan(snapshot: Snapshot, tables: TableStore, *, as_of: datetime | None = None) -> pl.LazyFrame:
    """The accepted rows in order: the snapshot's fields and `__row`, the row's position (Int64).

    Rows whose event time is after `as_of` are left out; values whose known time is after it, or missing, are null. Of a
    corrected or deleted row, the version in force at `as_of` (default: the end) counts.
    """
    frame = _every_row(snapshot, tables)
    if snapshot.versions is not None:
        from cumulant.data.corrections.dated_rows import filter_in_force

        frame = filter_in_force(frame, tables.scan(snapshot.versions), as_of)
    return frame if as_of is None else hide_after(frame, snapshot, as_of)


def scan_versions(snapshot: Snapshot, tables: TableStore, *, as_of: datetime | None = None) -> pl.LazyFrame:
    """As `scan`, with every version of corrected or deleted rows that was known by `as_of`.

    Each is in force between the moments `__from` and `__until` (Int64 microseconds).
    """
    if snapshot.versions is None:
        return scan(snapshot, tables, as_of=as_of)
    from cumulant.data.corrections.dated_rows import with_dates

    frame = with_dates(_every_row(snapshot, tables), tables.scan(snapshot.versions), as_of)
    return frame if as_of is None else hide_after(frame, snapshot, as_of)


def scan_deletions(snapshot: Snapshot, tables: TableStore, *, as_of: datetime | None = None) -> pl.LazyFrame | None:
    """Hidden rows that may be the last of their key by `as_of`: deletions, and repetitions, with `__from`.

    None where the snapshot has no versions.
    """
    if snapshot.versions is None:
        return None
    from cumulant.data.corrections.dated_rows import filter_hidden_at_end

    return filter_hidden_at_end(_every_row(snapshot, tables), tables.scan(snapshot.versions), as_of)


def _every_row(snapshot: Snapshot, tables: TableStore) -> pl.LazyFrame:
    import polars as pl

    from cumulant.data.text.casts import POLARS, conform

    if snapshot.parts:
        parts = [conform(rows.scan(tables), snapshot.fields) for rows in snapshot.parts]
        frame = pl.concat(parts, how="vertical")
    else:
        frame = pl.LazyFrame(schema={field.name: POLARS[field.dtype] for field in snapshot.fields})
    frame = frame.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    return frame.select(*(field.name for field in snapshot.fields), ROW)


def hide_after(frame: pl.LazyFrame, snapshot: Snapshot, as_of: datetime) -> pl.LazyFrame:
    """The rows of a snapshot without what became known after `as_of`."""
    import polars as pl

    from cumulant.core.units import moment

    limit = pl.lit(moment(as_of)).cast(pl.Datetime("us", "UTC"))
    if snapshot.event_time is not None:
        frame = frame.filter(pl.col(snapshot.event_time) <= limit)
    hidden = []
    for column, known in snapshot.known.items():
        if known.column is not None:
            moment_known = pl.col(known.column) + pl.duration(microseconds=known.delay_us)
        elif snapshot.event_time is not None:
            moment_known = pl.col(snapshot.event_time) + pl.duration(microseconds=known.delay_us)
        else:
            continue
        hidden.append(pl.when(moment_known <= limit).then(pl.col(column)).alias(column))
    return frame.with_columns(hidden) if hidden else frame
