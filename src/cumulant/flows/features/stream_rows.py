"""Rows of ingested batches, in the types that a feature plan has for them inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cumulant.core.units import to_micros
from cumulant.data.row_columns import LATE
from cumulant.flows.data.stream_records import batches_after, find_state

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import Field
    from cumulant.data.streams.records import StreamBatch
    from cumulant.features.online.hashed_keys import HashedKeys
    from cumulant.project.project import Project


class StreamRows:
    """Reads rows of a source for a plan; personal keys are hashed as the online store has them."""

    def __init__(self, project: Project, source: str, hashed: HashedKeys) -> None:
        self._project, self._source, self._hashed = project, source, hashed
        self._policy = project.policies.source(source)

    def of_batch(self, batch: StreamBatch, fields: Sequence[Field]) -> pl.DataFrame:
        """The rows of a batch that has some, and `__late`."""
        assert batch.rows is not None
        rows = batch.rows.scan(self._project.tables())
        named = {*(field.name for field in fields), LATE}
        return self.typed(rows.select(name for name in rows.collect_schema() if name in named).collect(), fields)

    def typed(self, rows: pl.DataFrame, fields: Sequence[Field]) -> pl.DataFrame:
        """Rows as they were stored."""
        import polars as pl

        from cumulant.data.streams.typed_rows import typed_rows
        from cumulant.features.offline.frames import read_fields

        typed = typed_rows(rows, self._policy, self._source, fields)
        frame = self._hashed.frames({self._source: typed})[self._source]
        inside = {field.name: field for field in self._hashed.plan.sources[self._source].fields}
        frame = read_fields(self._source, [inside.get(field.name, field) for field in fields], frame)
        late = rows[LATE] if LATE in rows.columns else pl.Series([False]).new_from_index(0, frame.height)
        return frame.with_columns(late.alias(LATE))

    def arrived(self, fields: Sequence[Field], *, after: int) -> pl.DataFrame:
        """The rows of the batches after this number that entered online features, with when their batch was committed
        (`logged_rows.ARRIVED`).
        """
        import polars as pl

        from cumulant.features.online.logged_rows import ARRIVED

        frames = [self.typed(pl.DataFrame(), fields).with_columns(pl.lit(0, pl.Int64).alias(ARRIVED))]
        for at, rows in self.batches_on_time(fields, after=after):
            frames.append(rows.with_columns(pl.lit(at, pl.Int64).alias(ARRIVED)))
        return pl.concat(frames)

    def batches_on_time(self, fields: Sequence[Field], *, after: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows that were not too late, of each batch after this number that has some, and when it was committed, in
        microseconds.
        """
        import polars as pl

        state, _ = find_state(self._project, self._source)
        last = 0 if state is None else state.batches
        for batch in batches_after(self._project, self._source, after, last, rows=sys.maxsize):
            if batch.rows is not None:
                yield to_micros(batch.at), self.of_batch(batch, fields).filter(~pl.col(LATE))
