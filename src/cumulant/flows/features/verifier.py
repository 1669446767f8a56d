"""Features of served rows, recomputed for one definition: equal, explained by rows that arrived later, or neither."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.core.errors import CumulantError, RequestError
from cumulant.core.ids import digest, short
from cumulant.core.units import to_micros
from cumulant.features.definition.personal_features import stored_features
from cumulant.features.offline.groups import groups_of
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.requests import RequestReader
from cumulant.features.verification import differing
from cumulant.flows.data.stream_records import last_batches
from cumulant.flows.data.validate import load_snapshot, newest_snapshot
from cumulant.flows.features.feature_table import deletions, scans
from cumulant.flows.features.served_rows import ServedRow
from cumulant.flows.features.stored_tables import (
    ELSEWHERE,
    FilledTable,
    filled_tables,
    fillings,
    read_state,
    table_readers,
)

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.features.posted.version_log import LoggedPart, PendingRow, VersionLog
    from cumulant.project.project import Project

#: rows with a difference, which are explained one by one, after which no more rows are compared; fillings (of tables
#: that are served, and as many of others) and moments of arrival that are tried for each
_EXPLAINED, _FILLINGS, _ARRIVALS = 200, 3, 64
#: microseconds from a row's arrival until it can be read, at most: it is committed meanwhile
_COMMITTED = 10_000_000


class ComparedRow(NamedTuple):
    """A row with its differences: by feature the expected value, and whether late rows explain it. None: that is not
    known, as the history that it was served from is not stored any more.
    """

    row: ServedRow
    differences: dict[str, tuple[Any, bool]] | None


class _History(NamedTuple):
    """Rows of snapshots, and those that were posted, by source; of sources whose rows correct each other the versions
    that one row may have been served from. `batches`: sources whose versions are of batches and when those were
    committed, in place of the log.
    """

    rows: Mapping[str, pl.LazyFrame]
    posted: Mapping[str, pl.DataFrame]
    versions: Mapping[str, LoggedPart]
    batches: Collection[str] = ()


class Verifier:
    """Recomputes rows of one definition. `names`: the features that are compared."""

    def __init__(
        self, project: Project, plan: FeaturePlan, fillings: Sequence[FilledTable], tables: Collection[str]
    ) -> None:
        from cumulant.features.online.logged_rows import posted_rows

        self._project, self._fingerprint, self._fillings = project, short(digest(plan)), fillings
        self._tables = tables
        self._hashed = HashedKeys.of(plan, project.salt)
        self._plan = self._hashed.plan
        self._sources = plan.sources
        self._scope = scope = self._hashed.log_scope(project.name)
        #: of sources whose rows correct each other what was posted, or came by a stream and is in online features
        self._logs: dict[str, VersionLog] = {}
        #: by snapshot, the rows of its stream since then
        self._since: dict[str, list[PendingRow]] = {}
        self._deletions: dict[tuple[str, str], pl.DataFrame | None] = {}
        self._posted = {
            name: posted_rows(project.online(), scope, source)
            for name, source in self._plan.sources.items()
            if source.key and isinstance(source.corrections, msgspec.UnsetType)
        }
        #: rows that came by streams, as the posted ones are: online features have them before a snapshot does
        self._streamed: dict[str, pl.DataFrame] = {}
        self.names = stored_features(plan)
        #: their values are hashes in the log, and none of the compared features reads them
        hidden = {field.name for field in plan.request if field.personal} - self._hashed.names
        self._request = [field for field in self._plan.request if field.name not in hidden]

    @classmethod
    def of(cls, project: Project, plan: FeaturePlan, version: str) -> Verifier | None:
        """Of a version, as `NAME/VERSION`. None where a source of the plan has no snapshot."""
        if any(newest_snapshot(project, name) is None for name in plan.sources):
            return None
        own = [table for table in filled_tables(project, every=True) if digest(table.plan) == digest(plan)]
        tables = {reader.table for reader in table_readers(project) if reader.version in {version, ELSEWHERE}}
        return cls(project, plan, own, tables)

    def reads(self, row: ServedRow) -> bool:
        """Whether the logged request has fields that can be read; large ones are logged as their hash."""
        try:
            RequestReader(self._request).read(row.request)
        except RequestError:
            return False
        return "$large" not in row.request

    def compare(self, rows: Sequence[ServedRow]) -> Iterator[ComparedRow]:
        """Each row; after as many rows with differences as are explained, it ends."""
        present = {name: newest_snapshot(self._project, name) for name in self._plan.sources}
        newest = {name: snapshot.id for name, snapshot in present.items() if snapshot is not None}
        fillings = {(filling.name, filling.begun): filling for row in rows for filling in self._candidates(row)}
        used = [newest, *(filling.snapshots for filling in fillings.values())]
        self._read_streams(used)
        self._read_logs(rows, used)
        expected = self._compute(self._present(newest), rows)
        explained = 0
        for row, values in zip(rows, expected, strict=True):
            if row.fingerprint != self._fingerprint:  # the server had another definition than the version's
                yield ComparedRow(row, {name: (values[name], False) for name in self.names if name in row.served})
                continue
            differences = differing(row.served, values, self.names)
            if differences and explained == _EXPLAINED:
                return
            explained += bool(differences)
            late = self._explain(row, differences) if differences else set[str]()
            named = None if late is None else {name: (values[name], name in late) for name in differences}
            yield ComparedRow(row, named)

    def _read_streams(self, used: Sequence[Mapping[str, str]]) -> None:
        """Read the rows of streams that are not in each of the snapshots which rows may be recomputed from."""
        import polars as pl

        from cumulant.flows.features.stream_rows import StreamRows

        for name, source in self._sources.items():
            if name not in self._posted or not _is_streamed(self._project, name):
                continue
            after = self._common_batch(name, {snapshots[name] for snapshots in used if name in snapshots})
            arrived = StreamRows(self._project, name, self._hashed).arrived(source.fields, after=after)
            self._streamed[name] = arrived
            posted = self._posted[name]
            self._posted[name] = pl.concat([posted, arrived.select(posted.columns)], how="vertical_relaxed")

    def _read_logs(self, rows: Sequence[ServedRow], used: Sequence[Mapping[str, str]]) -> None:
        """Read what logs have of the entities that these rows read; `used`: the snapshots, the newest first."""
        from cumulant.features.posted.requested_rows import RequestedRows
        from cumulant.features.posted.stored_versions import corrected_sources
        from cumulant.features.posted.version_log import VersionLog

        read = RequestReader(self._request).read
        requests = [read(row.request) for row in rows]
        for name in corrected_sources(self._plan):
            requested = RequestedRows(self._plan, name, requests)
            for identity in {snapshots[name] for snapshots in used if name in snapshots}:
                with suppress(CumulantError):  # a snapshot that is not stored any more
                    requested.add(self._snapshot_rows({name: identity})[name])
            for _, frame in self._waiting(name, used[0]):
                requested.add(frame)
            self._logs[name] = VersionLog(
                self._plan, name, self._project.online(), scope=self._scope, requested=requested
            )

    def _common_batch(self, source: str, snapshots: Collection[str]) -> int:
        """The last batch that all of these snapshots have, of those that are stored."""
        last = list[int]()
        for identity in snapshots:
            with suppress(CumulantError):
                last.append(last_batches(self._project, {source: load_snapshot(self._project, identity)})[source])
        return min(last, default=0)

    def _explain(self, row: ServedRow, names: Sequence[str]) -> set[str] | None:
        """The features whose served values are those of the rows that had arrived when it was answered. None: some are
        not, and a filling or version that the row may have been served from is not there any more.

        The stored features that a request reads are those of all rows up to some arrival: each of the last ones is
        tried, the newest first.
        """
        remaining, unknown, cut = set(names), True, False
        for position, filling in enumerate(self._candidates(row)):
            try:
                history = self._served_history(filling.snapshots, row)
                remaining = self._unexplained(row, history, remaining)
                lost = {name for name, part in history.versions.items() if part.known_since > row.begun - _COMMITTED}
                cut |= bool(lost)
                if remaining and (streams := {name for name in lost if _is_streamed(self._project, name)}):
                    again = self._served_history(filling.snapshots, row, streams)
                    remaining = self._unexplained(row, again, remaining)
            except CumulantError:  # a snapshot is not stored any more
                continue
            # Most likely the row was served from the first: that it can be recomputed is enough.
            unknown = unknown and position > 0
            if not remaining:
                break
        return None if remaining and (unknown or cut) else set(names) - remaining

    def _unexplained(self, row: ServedRow, history: _History, names: set[str]) -> set[str]:
        """Those of these features whose served values no moment of a history gives."""
        remaining = set(names)
        for arrived in self._arrivals(row, history):
            if not remaining:
                break
            (values,) = self._compute(_as_arrived(history, arrived), [row])
            remaining &= set(differing(row.served, values, self.names))
        return remaining

    def _candidates(self, row: ServedRow) -> list[FilledTable]:
        """Fillings that a row may have been served from, the likely ones first: of the tables that its version reads,
        then of others, the newest first.
        """
        before = [filling for filling in self._fillings if to_micros(filling.begun) <= row.ended]
        served = [filling for filling in before if filling.name in self._tables]
        others = [filling for filling in before if filling.name not in self._tables]
        return [*served[:_FILLINGS], *others[:_FILLINGS]]

    def _arrivals(self, row: ServedRow, history: _History) -> list[int]:
        """The moments up to which rows may have been read, the newest first."""
        from cumulant.features.online.logged_rows import ARRIVED

        first, moments = row.begun - _COMMITTED, {row.ended, row.begun}
        for posted in history.posted.values():
            own = posted[ARRIVED].drop_nulls()
            moments |= set(own.filter(own.is_between(first, row.ended)).to_list())
        for part in history.versions.values():
            moments |= {moment for moment in part.moments() if first <= moment <= row.ended}
        # A batch may have waited for longer until it was put into online features, after all those before it.
        batches = {int(at) for rows in self._streamed.values() for at in rows[ARRIVED].unique() if at <= row.ended}
        for name in history.batches:
            batches |= {moment for moment in history.versions[name].moments() if moment <= row.ended}
        earlier = sorted(batches - moments, reverse=True)[:_ARRIVALS]
        return [*sorted(moments, reverse=True)[:_ARRIVALS], first, *earlier]

    def _present(self, snapshots: Mapping[str, str]) -> _History:
        """All that is known now: of sources whose rows correct each other each version while it is in force."""
        rows = self._snapshot_rows(snapshots)
        for name, log in self._logs.items():
            waiting = (row for at, frame in self._waiting(name, snapshots) for row in log.pending(frame, at))
            rows[name] = log.dated(rows[name], self._gone(name, snapshots), waiting)
        return _History(rows, self._posted, {})

    def _served_history(self, snapshots: Mapping[str, str], row: ServedRow, streams: Collection[str] = ()) -> _History:
        """What a table that was filled from snapshots had, of the rows that share a key with this one. `streams`: of
        which batches are read in place of the log, which has lost some.
        """
        rows, keys = self._snapshot_rows(snapshots), self._keys(row)
        request = RequestReader(self._request).read(row.request)
        versions: dict[str, LoggedPart] = {}
        for name, condition in keys.items():
            if name in self._logs:
                gone = self._gone(name, snapshots)
                pending = self._batches(name, snapshots[name]) if name in streams else None
                versions[name] = self._logs[name].part(rows[name], gone, condition, request, pending)
            else:
                rows[name] = rows[name].filter(condition).collect().lazy()
        posted = {name: frame.filter(keys[name]) for name, frame in self._posted.items() if name in keys}
        return _History(rows, posted, versions, streams)

    def _snapshot_rows(self, snapshots: Mapping[str, str]) -> dict[str, pl.LazyFrame]:
        stored = {name: load_snapshot(self._project, identity) for name, identity in snapshots.items()}
        frames = self._hashed.frames(scans(self._project, stored, snapshots, as_of=None))
        return {name: frame.lazy() for name, frame in frames.items()}

    def _gone(self, name: str, snapshots: Mapping[str, str]) -> pl.DataFrame | None:
        """The deletions that a snapshot has of a source."""
        place = (name, snapshots[name])
        if place not in self._deletions:
            stored = {name: load_snapshot(self._project, snapshots[name])}
            frames = self._hashed.frames(deletions(self._project, self._plan, stored, as_of=None))
            self._deletions[place] = frames[name].lazy().collect() if name in frames else None
        return self._deletions[place]

    def _waiting(self, name: str, snapshots: Mapping[str, str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Rows of a stream that neither the snapshot nor online features have, with when their batch was committed."""
        if not _is_streamed(self._project, name):
            return
        after = max(self._common_batch(name, {snapshots[name]}), self._applied(name))
        yield from self._stream_rows(name, after=after)

    def _batches(self, name: str, snapshot: str) -> list[PendingRow]:
        """Rows of a stream since a snapshot, of those that are compared."""
        if snapshot not in self._since:
            frames = self._stream_rows(name, after=self._common_batch(name, {snapshot}))
            self._since[snapshot] = [row for at, frame in frames for row in self._logs[name].pending(frame, at)]
        return self._since[snapshot]

    def _stream_rows(self, name: str, *, after: int) -> Iterator[tuple[int, pl.DataFrame]]:
        from cumulant.flows.features.stream_rows import StreamRows

        corrections = self._sources[name].corrections
        more = () if isinstance(corrections, msgspec.UnsetType) else corrections.fields
        fields = {field.name: field for field in (*self._sources[name].fields, *more)}
        rows = StreamRows(self._project, name, self._hashed)
        yield from rows.batches_on_time([*fields.values()], after=after)

    def _applied(self, source: str) -> int:
        """The last batch of a source that a table of online features has: the rows until then are in the log."""
        states = (
            read_state(self._project.online(), table) for table in {each.table for each in fillings(self._project)}
        )
        own = (state.applied.get(source, 0) for state in states if state is not None and state.scope == self._scope)
        return max(own, default=0)

    def _keys(self, row: ServedRow) -> dict[str, pl.Expr]:
        """By source, the condition of rows that windows and lookups of a request may see."""
        import polars as pl

        from cumulant.features.online.logged_rows import field_frame

        request = field_frame(self._request, [RequestReader(self._request).read(row.request)]).row(0, named=True)
        conditions: dict[str, list[pl.Expr]] = {}
        for group in groups_of(self._plan):
            own = [pl.col(name).eq(pl.lit(request[name])).fill_null(value=False) for name in group.by]
            conditions.setdefault(group.source, []).append(pl.all_horizontal(own))
        return {name: pl.any_horizontal(own) for name, own in conditions.items()}

    def _compute(self, history: _History, rows: Sequence[ServedRow]) -> list[dict[str, Any]]:
        from cumulant.features.offline.offline import compute
        from cumulant.features.online.logged_rows import field_frame, with_posted

        frames = dict(history.rows)
        for name, posted in history.posted.items():
            frames[name] = with_posted(frames[name], posted, self._plan.sources[name])
        reader = RequestReader(self._request)
        requests = field_frame(self._request, [reader.read(row.request) for row in rows])
        computed = compute(self._plan, frames, rows=requests).select(self.names)
        decoded: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(computed.to_dicts()))
        return decoded


def _is_streamed(project: Project, source: str) -> bool:
    policy = project.policies.sources.get(source)
    return policy is not None and policy.spec.stream is not None


def _as_arrived(history: _History, by: int) -> _History:
    """What of a history had arrived by a moment."""
    import polars as pl

    from cumulant.features.online.logged_rows import ARRIVED

    arrived = pl.col(ARRIVED).is_null() | (pl.col(ARRIVED) <= by)
    posted = {name: frame.filter(arrived) for name, frame in history.posted.items()}
    versions = {name: part.rows_at(by).lazy() for name, part in history.versions.items()}
    return _History({**history.rows, **versions}, posted, {})
