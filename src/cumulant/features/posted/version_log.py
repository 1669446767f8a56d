"""The versions of rows that a log has of a source whose rows correct each other, with those of snapshots.

Online state holds of each key the version in force of what its snapshot and the log have (`row_versions`). The log
keeps what it had before for a while (`LoggedRow.earlier`), so that the state of an earlier moment can be told again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import polars as pl

from cumulant.core.plan import FeaturePlan
from cumulant.data.row_columns import FROM, LATE, ROW, UNTIL
from cumulant.features.offline.frames import inside, scan_fields
from cumulant.features.online.logged_rows import field_frame, log_begun, logged_rows
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.post_reader import PostReader
from cumulant.features.posted.posted_events import Inside, LoggedRow, PostedRow, key_values, log_table, row_key
from cumulant.features.posted.requested_rows import RequestedRows
from cumulant.features.posted.row_versions import StoredVersion, decode_version, version_key
from cumulant.features.posted.stored_versions import version_blobs, versions_of, with_order
from cumulant.ports.online import OnlineStore

Rows = pl.LazyFrame | pl.DataFrame
_START, _END = -(2**62), 2**62


class PendingRow(NamedTuple):
    """A row that no log has yet, and when it came, in microseconds."""

    row: PostedRow
    at: int


class _Dated(NamedTuple):
    """A version, and the moment in microseconds at which a deletion in the history ends it; None: none does."""

    version: StoredVersion
    until: int | None = None


class VersionLog:
    """What the log of a source has of the rows that are asked for: `plan` is as the online store has it, `name` one of
    `corrected_sources`.
    """

    def __init__(
        self, plan: FeaturePlan, name: str, store: OnlineStore, *, scope: str, requested: RequestedRows
    ) -> None:
        state = StateWriter(plan, store, "")
        self._plan, self.name, self._source = plan, name, with_order(plan.sources[name])
        self._writer, self._reader = state.versions[name], PostReader([state])
        self._requested, self._records = requested, dict[bytes, LoggedRow]()
        self._seen: dict[tuple[tuple[str, ...], tuple[object, ...]], set[bytes]] = {}
        row_of, moving = (
            state.groups(name)[0].row,
            {column for by in requested.by for column in by} - {*self._source.key},
        )
        gaps = [_START]
        for rows in logged_rows(store, log_table(scope, name)):
            for (key, record), is_asked in zip(rows, requested.holds([key for key, _ in rows]), strict=True):
                entities = {
                    entity for version in _versions(record) for entity in requested.entities_of(row_of(version))
                }
                if own := entities & requested.entities:
                    for entity in own:
                        self._seen.setdefault(entity, set()).add(key)
                if record.varied is None or not moving.isdisjoint(record.varied):
                    gaps.append(_known_since(record))  # what is not kept may have been of any entity
                if own or is_asked or key in self._records:
                    self._records[key] = record
        requested.add_keys(self._records)
        # After the rows: a log that loses some of them meanwhile knows of no moment before that.
        begun = log_begun(store, log_table(scope, name))
        gaps.append(_END if begun is None else begun)
        #: before it, in microseconds, the log had versions, of any rows, that it does not have any more
        self.known_since = max(gaps)

    def part(
        self,
        rows: Rows,
        deletions: Rows | None,
        condition: pl.Expr,
        request: Inside,
        pending: Sequence[PendingRow] | None = None,
    ) -> LoggedPart:
        """The versions that windows and lookups of a request may see. `rows` and `deletions` as those of `materialize`;
        `condition`: of the rows that a request sees; `pending`: what the log had in place of what it has.
        """
        lazy, key = scan_fields(self.name, self._source.fields, rows), list(self._source.key)
        seen = lazy.filter(condition).collect()
        own = {row_key(values) for values in inside(seen.select(key))}
        records: Mapping[bytes, LoggedRow] = self._records
        if pending is not None:
            records = self._records_of(pending, own, request, lazy, deletions)
        logged = (self._keys_of(request) | own) & self._records.keys() if pending is None else {*records}
        if logged:
            keys = self._requested.key_frame(logged)
            others = lazy.join(keys.lazy(), on=key, how="semi").collect()
            seen = pl.concat([seen.join(keys, on=key, how="anti"), others])
        stored = dict(self._stored(seen))
        if logged and deletions is not None:
            stored |= self._stored(seen, deletions, logged)
        return LoggedPart(self, stored, {key: records[key] for key in logged})

    def _records_of(
        self,
        pending: Sequence[PendingRow],
        keys: Collection[bytes],
        request: Inside,
        rows: pl.LazyFrame,
        deletions: Rows | None,
    ) -> dict[bytes, LoggedRow]:
        """What a log of these rows has of keys, and of the rows that a request sees."""
        entities = {*self._requested.entities_of(request)}
        seen = {each.row.key for each in pending if entities.intersection(self._requested.entities_of(each.row.values))}
        by_key: dict[bytes, list[PendingRow]] = {}
        for each in pending:
            if each.row.key in seen or each.row.key in keys:
                by_key.setdefault(each.row.key, []).append(each)
        if not by_key:
            return {}
        of_keys = rows.join(self._requested.key_frame(by_key).lazy(), on=list(self._source.key), how="semi").collect()
        last, records = self._stored(of_keys, deletions, by_key.keys()), dict[bytes, LoggedRow]()
        for key, of in by_key.items():
            versions = self._follow([], last.get(version_key(self.name, key_values(key))), of)
            if versions:
                records[key] = msgspec.structs.replace(versions[-1], earlier=versions[:-1])
        return records

    def rows_at(
        self, stored: Mapping[bytes, StoredVersion], records: Mapping[bytes, LoggedRow], moment: int
    ) -> pl.DataFrame:
        """The rows in force of a table that was filled with `stored` and has what the log had at a moment."""
        present = dict(stored)
        for key, record in records.items():
            entered, place = _version_at(record, moment), version_key(self.name, key_values(key))
            after = None if entered is None else self._writer.after(entered, stored.get(place))
            if after is not None:
                present[place] = after
        values = [version.values for version in present.values() if not version.deleted]
        return field_frame(self._plan.sources[self.name].fields, values)

    def pending(self, frame: pl.DataFrame, at: int) -> Iterator[PendingRow]:
        """Rows of a batch that is not in the log, as it will be there; of those that are asked for."""
        rows = self._requested.of(frame).drop(ROW, LATE, strict=False)
        post, _ = self._reader.read(self.name, rows.to_dicts())
        return (PendingRow(row, at) for row in post.rows)

    def dated(self, rows: Rows, deletions: Rows | None, pending: Iterable[PendingRow] = ()) -> pl.LazyFrame:
        """The history: all versions of snapshots and the log, with the moments from and until which each is in force.

        `pending`: rows that came after those of the log, in their order.
        """
        waiting: dict[bytes, list[PendingRow]] = {}
        for each in pending:
            waiting.setdefault(each.row.key, []).append(each)
        keys, fields = self._records.keys() | waiting.keys(), self._plan.sources[self.name].fields
        lazy, key = scan_fields(self.name, self._source.fields, rows), list(self._source.key)
        if not keys:
            return rows.lazy()
        key_frame = self._requested.key_frame(keys)
        frame = lazy.join(key_frame.lazy(), on=key, how="semi").collect()
        last = self._stored(frame, deletions, keys)
        history = self._history(frame)
        dated: list[tuple[Inside, int | None, int | None]] = []
        for name in keys:
            place = version_key(self.name, key_values(name))
            of, end = history.get(place, []), last.get(place)
            if end is not None and end.deleted:
                of.append(_Dated(end))
            logged = [] if name not in self._records else _versions(self._records[name])
            logged += self._follow(logged, end, waiting.get(name, ()))
            dated += _intervals(self._merge(of, logged))
        versions = field_frame(fields, [values for values, _, _ in dated]).with_columns(
            pl.Series(FROM, [begin for _, begin, _ in dated], pl.Int64),
            pl.Series(UNTIL, [end for _, _, end in dated], pl.Int64),
        )
        others = lazy.join(key_frame.lazy(), on=key, how="anti")
        if FROM not in others.collect_schema():
            others = others.with_columns(pl.lit(None, pl.Int64).alias(FROM), pl.lit(None, pl.Int64).alias(UNTIL))
        return pl.concat([others.select(versions.columns), versions.lazy()], how="vertical_relaxed")

    def _keys_of(self, request: Inside) -> set[bytes]:
        return set[bytes]().union(*(self._seen.get(entity, ()) for entity in self._requested.entities_of(request)))

    def _stored(
        self, frame: pl.DataFrame, deletions: Rows | None = None, keys: Collection[bytes] | None = None
    ) -> dict[bytes, StoredVersion]:
        """By its place in a table, the version in force of each key."""
        blobs = version_blobs(self._plan, self.name, frame, None, deletions=deletions, keys=keys)
        return {place: decode_version(blob) for place, blob in blobs}

    def _history(self, frame: pl.DataFrame) -> dict[bytes, list[_Dated]]:
        """By its place in a table, the versions of each key in snapshots, in their order."""
        if UNTIL in frame.columns:
            frame = frame.sort(FROM, nulls_last=False, maintain_order=True)
        ends = frame[UNTIL].to_list() if UNTIL in frame.columns else [None] * frame.height
        history: dict[bytes, list[_Dated]] = {}
        for (key, version), until in zip(versions_of(frame, self._source, self._writer.columns), ends, strict=True):
            history.setdefault(version_key(self.name, key), []).append(_Dated(version, until))
        return history

    def _follow(
        self, logged: list[LoggedRow], stored: StoredVersion | None, pending: Iterable[PendingRow]
    ) -> list[LoggedRow]:
        """The versions that these rows will be, after those of the log and of the snapshot."""
        rule, versions = self._writer.rule, list[LoggedRow]()
        latest = rule.latest(logged[-1] if logged else None, [] if stored is None else [stored])
        for row, at in pending:
            after = rule.version_after(row, latest, entry=0, now=at)
            if after is not None:
                after.entered, latest = at, after
                versions.append(after)
        return versions

    def _merge(self, stored: list[_Dated], logged: list[LoggedRow]) -> Iterator[_Dated]:
        """The versions of a key in their order, those of the log completed by the ones that they follow."""
        remaining, before = iter(stored), None
        following = next(remaining, None)
        for record in logged:
            while following is not None and self._writer.rule.supersedes(record, following.version):
                before = following.version
                yield following
                following = next(remaining, None)
            after = self._writer.after(record, before)
            if after is not None:
                before = after
                yield _Dated(after)
        if following is not None:
            yield following
            yield from remaining


class LoggedPart(NamedTuple):
    """Of some rows, what a table was filled with, by place, and what the log has."""

    log: VersionLog
    stored: Mapping[bytes, StoredVersion]
    records: Mapping[bytes, LoggedRow]

    @property
    def known_since(self) -> int:
        """Before it, in microseconds, there were versions of these rows, or of rows that are not known any more, which
        the log does not have.
        """
        return max([self.log.known_since, *(_known_since(record) for record in self.records.values())])

    def rows_at(self, moment: int) -> pl.DataFrame:
        """The rows in force when the table had what the log had at a moment, in microseconds."""
        return self.log.rows_at(self.stored, self.records, moment)

    def moments(self) -> set[int]:
        """When versions came into the log, in microseconds."""
        entered = {_entered(version) for record in self.records.values() for version in _versions(record)}
        return {moment for moment in entered if moment is not None}


def _versions(record: LoggedRow) -> list[LoggedRow]:
    return [*record.earlier, record]


def _entered(version: LoggedRow) -> int | None:
    """When the log took a version; earlier versions of Cumulant recorded the arrival of the row's last change."""
    return version.arrived if version.entered is None else version.entered


def _version_at(record: LoggedRow, moment: int) -> LoggedRow | None:
    """What the log had of a row at a moment."""
    before = [of for of in _versions(record) if (at := _entered(of)) is None or at <= moment]
    return before[-1] if before else None


def _known_since(record: LoggedRow) -> int:
    """Since when all versions of a row are known."""
    first = _versions(record)[0]
    at = _entered(first)
    return at if at is not None and (record.cut or first.entered is None) else _START


def _intervals(versions: Iterable[_Dated]) -> Iterator[tuple[Inside, int | None, int | None]]:
    """The values of versions that are in force at some time, with when that begins and ends."""
    following = _END
    intervals = []
    for version, until in reversed([*versions]):
        begins = _START if version.begins is None else version.begins
        ends = following if until is None else min(until, following)
        if begins < ends and not version.deleted:
            intervals.append((version.values, version.begins, None if ends == _END else ends))
        following = min(following, begins)
    yield from reversed(intervals)
