"""Metrics of the sources' snapshots and of the online state that was filled from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.prometheus import Series
from cumulant.core.units import from_micros
from cumulant.data.profile import Profile
from cumulant.flows.data.validate import NEWEST, REFUSED
from cumulant.flows.features.stored_tables import read_state
from cumulant.flows.features.verification_record import last_verification
from cumulant.flows.observe.families import MOST_FEATURES
from cumulant.flows.serving.serve import FILLED

if TYPE_CHECKING:
    from cumulant.project.project import Project


class _SnapshotSummary(msgspec.Struct, frozen=True):
    """What of a snapshot's record is published."""

    accepted: datetime
    event_time: str | None
    rows_in: int
    rows_quarantined: int
    profile: Profile


def data_series(project: Project) -> Iterator[Series]:
    journal = project.journal()
    refused = {row.key for row in journal.rows(REFUSED)}
    newest = journal.rows(NEWEST)
    for row in newest:
        snapshot, source = msgspec.convert(row.value, _SnapshotSummary), row.key
        yield Series("cumulant_data_accepted_timestamp_seconds", (source,), snapshot.accepted.timestamp())
        if (moment := newest_moment(snapshot.profile, snapshot.event_time)) is not None:
            yield Series("cumulant_data_newest_timestamp_seconds", (source,), moment.timestamp())
        if snapshot.rows_in:
            share = snapshot.rows_quarantined / snapshot.rows_in
            yield Series("cumulant_data_quarantined_ratio", (source,), share)
    for source in sorted({*refused, *(row.key for row in newest)}):
        yield Series("cumulant_data_refused", (source,), float(source in refused))
    for source, policy in project.policies.sources.items():
        if policy.freshness is not None:
            seconds = policy.freshness.total_seconds()
            yield Series("cumulant_online_freshness_objective_seconds", (source,), seconds)
    verification = last_verification(journal, project.name)
    for feature in () if verification is None else verification.features[:MOST_FEATURES]:
        yield Series("cumulant_feature_mismatch_ratio", (feature.feature,), feature.rate)
        yield Series("cumulant_feature_verified_rows", (feature.feature,), feature.rows)
    yield from _online_series(project)


def newest_moment(profile: Profile, column: str | None) -> datetime | None:
    """The newest time in the column; None where there is none."""
    if column is None or column not in profile:
        return None
    described = profile[column]
    if described.max is None or described.dtype not in ("time", "date"):
        return None
    return from_micros(round(described.max * (1 if described.dtype == "time" else 86_400_000_000)))


def _online_series(project: Project) -> Iterator[Series]:
    """Nothing while the store does not answer: servers report that themselves."""
    with suppress(CumulantError):
        store = project.online()
        for table in store.tables():
            text = store.meta(table).get(FILLED, "")
            with suppress(ValueError):
                filled = datetime.fromisoformat(text).timestamp()
                yield Series("cumulant_online_state_filled_timestamp_seconds", (table,), filled)
            if text and (state := read_state(store, table)) is not None:
                for source, newest in sorted(state.newest.items()):
                    yield Series("cumulant_online_newest_timestamp_seconds", (table, source), newest / 1e6)
