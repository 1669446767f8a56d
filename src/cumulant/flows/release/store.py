"""Rows of releases in the journal: the newest of each model, the ended ones, and their looks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.structs import struct_from
from cumulant.flows.ledger.row_cache import RowCache
from cumulant.release.events import (
    MetricReported,
    ReleaseEnded,
    ReleaseHeld,
    ReleaseResumed,
    ReleaseStarted,
    SloHeld,
    SloMet,
    SloOverridden,
    StepBegun,
)
from cumulant.release.look_history import LookHistory
from cumulant.release.state import Board, Release

if TYPE_CHECKING:
    from datetime import datetime

    from cumulant.core.events import Fact
    from cumulant.ports.journal import Journal, Row, Transaction

RELEASE, PAST = "release", "release_past"
#: a newer candidate that waits for the end of a release, by model
WAITING = "release_waiting"
#: the looks of a release, by model and release
LOOKS = "release_looks"
#: logarithm of the e-value up to which it is reported exactly
_MOST = 30.0


def read(journal: Journal, model: str) -> tuple[Release, int] | None:
    """The newest release of a model and its row's version; None where there was none."""
    row = journal.get(RELEASE, model)
    return None if row is None else (msgspec.convert(row.value, Release), row.version)


def written_at(journal: Journal, release: Release) -> datetime | None:
    """When the release was evaluated last: its end, or the last write of its row."""
    row = None if release.over else journal.get(RELEASE, release.model)
    return release.ended if row is None else row.updated


def read_required(journal: Journal, model: str) -> tuple[Release, int]:
    """As `read`; raises NotFoundError if no release of the model was ever started."""
    stored = read(journal, model)
    if stored is None:
        raise NotFoundError(f"{model} has had no release", subject=model, hint="`cumulant release start` begins one")
    return stored


def list_past(journal: Journal, model: str) -> list[Release]:
    """Releases that ended, the newest last; the states of their tests are not kept."""
    rows = journal.rows(PAST, f"{model}/")
    return sorted(
        (msgspec.convert(row.value, Release) for row in rows), key=lambda release: (release.begun, release.id)
    )


def past_cache() -> RowCache[Release]:
    """Ended releases in memory, without their evidence, for lists."""
    return RowCache(PAST, _without_evidence)


def _without_evidence(row: Row) -> Release:
    release = msgspec.convert(row.value, Release)
    return msgspec.structs.replace(release, boards={}, memory={}, passed=(), evaluation=None)


def newest_releases(
    journal: Journal, model: str, *, before: str | None = None, limit: int, cache: RowCache[Release] | None = None
) -> list[Release]:
    """At most `limit` releases of a model below the id `before`, the newest first: ids begin with the time. Ended ones
    come without evidence.
    """
    prefix = f"{model}/"
    past = (cache or past_cache()).rows(
        journal, prefix, after=before and f"{prefix}{before}", limit=limit, descending=True
    )
    listed = {release.id: release for release in past.values()}
    newest = read(journal, model)
    if newest is not None and (before is None or newest[0].id < before):
        listed[newest[0].id] = newest[0]
    return sorted(listed.values(), key=lambda release: release.id, reverse=True)[:limit]


def read_one(journal: Journal, model: str, identity: str) -> Release | None:
    """A release of a model by its id, under way or ended."""
    newest = read(journal, model)
    if newest is not None and newest[0].id == identity:
        return newest[0]
    row = journal.get(PAST, f"{model}/{identity}")
    return None if row is None else msgspec.convert(row.value, Release)


def list_models(journal: Journal) -> list[str]:
    """The models that have had a release: the project's own, and those of servers of others."""
    return [row.key for row in journal.rows(RELEASE)]


def list_releases(journal: Journal, model: str) -> list[Release]:
    """All releases of a model, the newest first."""
    by_id = {release.id: release for release in list_past(journal, model)}
    newest = read(journal, model)
    if newest is not None:
        by_id[newest[0].id] = newest[0]
    return sorted(by_id.values(), key=lambda release: (release.begun, release.id), reverse=True)


def read_looks(journal: Journal | Transaction, model: str, release: str) -> LookHistory | None:
    """The looks of a release; None where none was recorded, or another version of the program recorded them."""
    row = journal.get(LOOKS, f"{model}/{release}")
    try:
        return None if row is None else msgspec.convert(row.value, LookHistory)
    except msgspec.ValidationError:
        return None


def write_look(transaction: Transaction, counted: Release, *, at: datetime) -> None:
    """Record the look that was counted, in the transaction that stores what was decided on it."""
    from cumulant.release.evidence.look_recording import add_look  # it needs numpy, which no reader of these rows does

    before = read_looks(transaction, counted.model, counted.id)
    after = add_look(before, counted, at=at)
    if after != before:
        value = cast("dict[str, object]", msgspec.to_builtins(after))
        transaction.put(LOOKS, f"{counted.model}/{counted.id}", value)


def write(transaction: Transaction, before: Release | None, after: Release, *, expect: int) -> int:
    """Store the release and emit its changes since `before`, in the caller's transaction; returns the row's version.

    Raises:
        LeaseHeldError: another process wrote it since it was read.
    """
    if after.over:
        from cumulant.release.evidence.accumulate import (
            without_states,  # it needs numpy, which no reader of these rows does
        )

        after = without_states(after)
    row = transaction.put(RELEASE, after.model, _plain(after), expect=expect)
    for fact in change_facts(before, after):
        transaction.emit(fact)
    if after.over:
        transaction.put(PAST, f"{after.model}/{after.id}", _plain(after))
    return row.version


def change_facts(before: Release | None, after: Release) -> Iterator[Fact]:
    """The events of a change."""
    if before is None or before.id != after.id:
        yield ReleaseStarted(
            release=after.id,
            model=after.model,
            champion=after.champion.version,
            candidate=after.candidate.version,
            steps=tuple(step.label for step in after.steps),
        )
        before = None
    yield from _slo_facts(before, after)
    if after.over:
        if before is None or not before.over:
            yield _ended_event(after)
        return
    if after.status != (before.status if before else "pending"):
        if after.status in ("paused", "awaiting_approval"):
            yield ReleaseHeld(
                release=after.id, model=after.model, status=after.status, step=after.step.label, reason=after.reason
            )
        elif before is not None and before.status in ("paused", "awaiting_approval"):
            yield ReleaseResumed(release=after.id, model=after.model, step=after.step.label, reason=after.reason)
    began = after.status == "running" and (before is None or before.status == "pending" or before.at != after.at)
    if began:
        yield struct_from(StepBegun, after, release=after.id, step=after.step.label)


def _slo_facts(before: Release | None, after: Release) -> Iterator[Fact]:
    earlier, override = (before.slo_hold, before.slo_override) if before else ("", "")
    if after.slo_override != override:
        hold, reason = after.slo_hold, after.slo_override
        yield SloOverridden(release=after.id, model=after.model, hold=hold, reason=reason)
    if after.slo_hold and not earlier and not after.slo_override:
        yield SloHeld(release=after.id, model=after.model, step=after.step.label, reason=after.slo_hold)
    elif earlier and not after.slo_hold and not after.slo_override:
        yield SloMet(release=after.id, model=after.model, step=after.step.label)


def _ended_event(release: Release) -> ReleaseEnded:
    return ReleaseEnded(
        release=release.id,
        model=release.model,
        champion=release.champion.version,
        candidate=release.candidate.version,
        status=release.status,
        reason=release.reason,
        step=release.step.label,
        figures=tuple(board_figure(board) for board in release.boards.values()),
        rollback=release.rollback,
    )


def board_figure(board: Board) -> MetricReported:
    """The values of a board for an event."""
    return struct_from(
        MetricReported,
        board,
        harm=_value(board.most_harm),
        harm_needed=None if board.harm_bar is None else _value(board.harm_bar),
        fine=_value(board.most_fine),
        fine_needed=_value(board.fine_bar),
    )


def _value(log: float) -> float:
    return round(math.exp(min(log, _MOST)), 4)


def _plain(release: Release) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(release))
