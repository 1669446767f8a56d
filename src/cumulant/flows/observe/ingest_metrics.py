"""Metrics of the ingestion of streams: what was committed, and what the processes that ingest report."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.core.prometheus import Series
from cumulant.flows.data.stream_lag import StreamReport, newest_lags, source_reports
from cumulant.flows.data.stream_records import find_state

if TYPE_CHECKING:
    from cumulant.data.streams.records import StreamState
    from cumulant.project.project import Project

#: rules of a source that have series, those that refused the most messages; bounds the number of series
_MOST_RULES = 50


def ingest_series(project: Project, now: datetime) -> Iterator[Series]:
    """Of the declared sources with a stream of which anything was ingested."""
    streamed = [name for name, policy in project.policies.sources.items() if policy.spec.stream is not None]
    if not streamed:
        return
    reports = source_reports(project.journal())
    for source in streamed:
        state, _ = find_state(project, source)
        if state is not None:
            yield from _committed_series(source, state)
            yield from _reported_series(source, reports.get(source, []), now)


def _committed_series(source: str, state: StreamState) -> Iterator[Series]:
    yield Series("cumulant_ingest_messages_total", (source,), state.messages)
    yield Series("cumulant_ingest_rows_total", (source,), state.rows)
    yield Series("cumulant_ingest_batches_total", (source,), state.batches)
    yield Series("cumulant_ingest_rebalances_total", (source,), state.rebalances)
    for rule, count in sorted(state.rules.items(), key=lambda item: (-item[1], item[0]))[:_MOST_RULES]:
        yield Series("cumulant_ingest_refused_total", (source, rule), count)
    if state.at is not None:
        yield Series("cumulant_ingest_committed_timestamp_seconds", (source,), state.at.timestamp())


def _reported_series(source: str, reports: list[StreamReport], now: datetime) -> Iterator[Series]:
    if not reports:
        return
    partitions = newest_lags(reports)
    waited = [(now - lag.since).total_seconds() for lag in partitions.values() if lag.since is not None]
    yield Series("cumulant_ingest_consumers", (source,), len(reports))
    yield Series("cumulant_ingest_reported_timestamp_seconds", (source,), reports[-1].at.timestamp())
    yield Series("cumulant_ingest_lag_messages", (source,), sum(lag.waiting for lag in partitions.values()))
    yield Series("cumulant_ingest_lag_seconds", (source,), max(0.0, *waited) if waited else 0.0)
