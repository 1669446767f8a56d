"""Drift as pages show it: how far each column was from the reference in each window, and its values then and now.

A journal row by model, written by each comparison that finds anything else than the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cumulant.monitoring.drift.profiles import ColumnCells, ProfileBlock, Role
from cumulant.monitoring.drift.words import sentence

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.drift_page import DriftPageSource
    from cumulant.monitoring.drift.findings import Findings
    from cumulant.monitoring.drift.profiles import ColumnCounts
    from cumulant.monitoring.policy import DriftPolicy
    from cumulant.ports.journal import Journal

#: journal rows, by model: what pages show, and the last event of a comparison, which may be of an earlier version
HISTORY, COMPARED = "drift_history", "drift_evaluated"
#: columns and windows that are stored: the row is written again with each window
_COLUMNS, _WINDOWS = 60, 120
_DIGITS = 3


class FoundChange(msgspec.Struct, frozen=True, kw_only=True):
    """A finding on a column in words. `active`: it alarms in the newest window."""

    kind: str
    text: str
    active: bool


class ColumnHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One column over the windows.

    `weight`: what the model makes of it, 1 is usual. `effects`: the largest effect of a window by itself, in terms of
    the least that matters; None where it has too few rows. `confirmed`: places of windows that alarmed. `before` and
    `now`: counts of values [cells] in the reference and in the newest windows; `missing`: their shares without one.
    """

    feature: str
    role: Role
    weight: float
    effects: tuple[float | None, ...]
    confirmed: tuple[int, ...]
    findings: tuple[FoundChange, ...]
    cells: ColumnCells
    before: tuple[int, ...]
    now: tuple[int, ...]
    missing: tuple[float, float]


class DriftHistory(msgspec.Struct, frozen=True, kw_only=True):
    """`newest`: how many of the newest windows `now` is of; `hidden`: columns that are not stored."""

    version: str
    reference: str
    windows: tuple[ProfileBlock, ...]
    columns: tuple[ColumnHistory, ...]
    newest: int
    hidden: int


def drift_history(
    look: DriftPageSource, policy: DriftPolicy, *, version: str, weights: Mapping[str, float]
) -> DriftHistory:
    """The columns with the largest weight, and before these all that alarmed, over the newest windows."""
    from cumulant.monitoring.drift.comparing import measure_window_effects

    drift = look.drift
    first = max(len(drift.windows) - _WINDOWS, 0)
    span = min(max(policy.spans), drift.newest + 1)
    known = {**weights, **policy.weights}
    effects = {record.feature: record.worst for record in measure_window_effects(look.reference, look.current, policy)}
    alarmed = {finding.feature for finding in drift.findings}
    order = sorted(effects, key=lambda name: (name not in alarmed, -known.get(name, 1.0), name))[:_COLUMNS]
    sides = {
        before.name: (before, now)
        for before, now in zip(look.reference.columns, look.current.columns, strict=True)
        if before.name in set(order)
    }
    newest = slice(drift.newest + 1 - span, drift.newest + 1)
    columns = [
        _column(sides[name], drift, effects[name], first=first, newest=newest, weight=known.get(name, 1.0))
        for name in sorted(order, key=lambda name: (-known.get(name, 1.0), name))
    ]
    return DriftHistory(
        version=version,
        reference=look.against,
        windows=drift.windows[first:],
        columns=tuple(columns),
        newest=span,
        hidden=len(effects) - len(columns),
    )


def read_history(journal: Journal, model: str) -> DriftHistory | None:
    """What the newest comparison stored; None where there was none."""
    row = journal.get(HISTORY, model)
    return None if row is None else msgspec.convert(row.value, DriftHistory)


def _column(
    sides: tuple[ColumnCounts, ColumnCounts],
    drift: Findings,
    effects: tuple[float | None, ...],
    *,
    first: int,
    newest: slice,
    weight: float,
) -> ColumnHistory:
    before, now = sides
    findings = [finding for finding in drift.findings if finding.feature == before.name]
    places = sorted({place - first for finding in findings for place in finding.alarmed if place >= first})
    then, after = _sum(before.counts), _sum(now.counts[newest])
    return ColumnHistory(
        feature=before.name,
        role=before.role,
        weight=round(weight, _DIGITS),
        effects=tuple(None if effect is None else round(effect, _DIGITS) for effect in effects[first:]),
        confirmed=tuple(places),
        findings=tuple(FoundChange(kind=each.kind, text=sentence(each), active=each.active) for each in findings),
        cells=msgspec.structs.replace(before.cells, known=()),  # only the named values are shown
        before=then,
        now=after,
        missing=(_share(sum(before.missing), then), _share(sum(now.missing[newest]), after)),
    )


def _sum(counts: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    return tuple(sum(cells) for cells in zip(*counts, strict=True))


def _share(missing: int, counts: tuple[int, ...]) -> float:
    return round(missing / max(missing + sum(counts), 1), 6)
