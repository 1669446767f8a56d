"""Updates of online state from the logs. A table holds what its snapshot and the posted rows together would give.

A row enters each group at its known time, however late or out of order it is posted; a repetition changes nothing. With
corrections, a later version of a row replaces it, and a deletion removes it (`row_versions`). Needs no Polars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cumulant.core.errors import UsageError
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.group_events import LogRow, TableUpdate
from cumulant.features.posted.post_reader import AdvanceResult, Post, PostReader
from cumulant.features.posted.posted_events import Inside, SourceLog, key_values, log_table
from cumulant.features.posted.version_writer import VersionWriter
from cumulant.ports.online import Cells

#: by how much the clock of a caller may be ahead where nothing is declared: clocks that are synchronised differ by less
DEFAULT_SKEW_US = 1_000_000


def advance(
    writers: Sequence[StateWriter], source: str, rows: Sequence[Mapping[str, object]], *, scored: bool = False
) -> AdvanceResult:
    """Write rows of a source into all these tables, which lie in one store; durable when this returns.

    A `scored` row, of a request, corrects and deletes nothing.

    Raises:
        RequestError: a value does not fit its field.
        EngineUnavailableError, IntegrityError: a table holds no state, or that of another plan.
    """
    post, refused = PostReader(writers).read(source, rows, scored=scored)
    (done,) = commit(writers, [post])
    return sum_results([refused, done])


def commit(writers: Sequence[StateWriter], posts: Sequence[Post], *, skew_us: int | None = None) -> list[AdvanceResult]:
    """Write posts into all these tables in one transaction; the result of each post.

    Corrections and deletions known more than `skew_us` (None: `DEFAULT_SKEW_US`) after now are left out.
    """
    if not any(post.rows for post in posts):
        return [AdvanceResult() for _ in posts]
    results, behind = writers[0].store.update(lambda cells: _Update(cells, writers, skew_us).commit(posts))
    if behind:
        for writer in writers:
            catch_up(writer)
    return results


def catch_up(writer: StateWriter) -> int:
    """Read what the logs of the table's sources have and it does not; returns the number of rows."""
    count, behind = 0, True
    while behind:
        update = writer.store.update(lambda cells: _Update(cells, [writer]).take())
        count, behind = count + update.rows, update.behind
    return count


def sum_results(counts: Iterable[AdvanceResult]) -> AdvanceResult:
    sums: Any = dict.fromkeys(AdvanceResult.__struct_fields__, 0)
    for result in counts:
        for name in sums:
            sums[name] += getattr(result, name)
    return AdvanceResult(**sums)


class _Update:
    """One transaction over the logs of the sources and the tables that read them."""

    def __init__(self, cells: Cells, writers: Sequence[StateWriter], skew_us: int | None = None) -> None:
        self._cells = cells
        self._states = [(writer, writer.state(cells)) for writer in writers]
        scopes = {state.scope for _, state in self._states}
        if len(scopes) != 1:
            raise UsageError(f"tables of several scopes ({', '.join(sorted(scopes))}) do not advance together")
        (self._scope,) = scopes
        self._logs: dict[str, SourceLog] = {}
        #: by source the rows that it sent, repetitions too
        self._sent: dict[str, list[Inside]] = {}
        self._now = writers[0].now_us()
        self._limit = self._now + (DEFAULT_SKEW_US if skew_us is None else skew_us)

    def commit(self, posts: Sequence[Post]) -> tuple[list[AdvanceResult], bool]:
        appended = [self._append(post) for post in posts]
        update = self.take()
        # Rows that the snapshot had in full are duplicates too, though the log did not have them.
        unchanged = update.known - update.changed
        counts = []
        for (keys, early), post in zip(appended, posts, strict=True):
            accepted = sum(key not in unchanged for key in keys)
            counts.append(AdvanceResult(accepted=accepted, duplicates=len(post.rows) - accepted - early, early=early))
        return counts, update.behind

    def take(self) -> TableUpdate:
        """Update every table from the logs; the logs are saved."""
        every = TableUpdate()
        for writer, state in self._states:
            logs = {source: self._log(source) for source in sorted(writer.sources)}
            update = writer.take(self._cells, state, logs, self._sent)
            every.rows += update.rows
            every.known |= update.known
            every.changed |= update.changed
            every.behind |= update.behind
        for log in self._logs.values():
            log.save()
        return every

    def _append(self, post: Post) -> tuple[list[LogRow], int]:
        """The rows with new values, and how many were refused as they are posted before their known time."""
        log = self._log(post.source)
        log.load(row.key for row in post.rows)
        writers = [(writer, state, writer.versions_in(state, post.source)) for writer, state in self._states]
        tables = [(versions, writer.table) for writer, state, versions in writers if versions is not None]
        if tables:
            return self._correct(log, post, tables)
        self._sent.setdefault(post.source, []).extend(row.values for row in post.rows if not row.scored)
        return [(post.source, row.key) for row in post.rows if log.append(row, arrived=self._now)], 0

    def _correct(
        self, log: SourceLog, post: Post, tables: Sequence[tuple[VersionWriter, str]]
    ) -> tuple[list[LogRow], int]:
        """As `_append`, where later rows correct the earlier ones."""
        rule = max((versions.rule for versions, _ in tables), key=lambda rule: rule.priority)
        keys = [key_values(row.key) for row in post.rows]
        stored = [versions.stored(self._cells, table, keys) for versions, table in tables]
        changed, early, sent = [], 0, self._sent.setdefault(post.source, [])
        for row, *versions_of_row in zip(post.rows, *stored, strict=True):
            before = rule.latest(log.record(row.key), [version for version in versions_of_row if version is not None])
            after = rule.version_after(row, before, entry=log.next, now=self._now)
            if after is None:
                if not row.scored:
                    log.note_sent(row.key)
                    sent.append(row.values)
                continue
            if rule.is_early(after, before, self._limit):
                early += 1
                continue
            if not row.scored:
                sent.append(row.values)
            log.replace(row.key, after, now=self._now)
            changed.append((post.source, row.key))
        return changed, early

    def _log(self, source: str) -> SourceLog:
        if source not in self._logs:
            self._logs[source] = SourceLog(self._cells, log_table(self._scope, source))
        return self._logs[source]
