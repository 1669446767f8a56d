"""Limits of a declaration that can never be evaluated, or never hold: refused before a row is read."""

from __future__ import annotations

from cumulant.core.errors import UsageError
from cumulant.core.units import share
from cumulant.data.checks.batch_rows import parse_row_share
from cumulant.data.formats.nested_paths import paths_of
from cumulant.data.spec import Range, RuleSpec, ShareRange, SourceSpec


def refuse_unusable(spec: SourceSpec) -> None:
    """Raise UsageError for text that is no share, and for a `min` above its `max`."""
    paths_of(spec.columns)
    share(spec.quarantine)
    for limit in (spec.batch.min_rows, spec.batch.max_rows):
        if isinstance(limit, str):
            parse_row_share(limit)
    for column, rule in spec.rules.items():
        _refuse_in_rule(column, rule)


def _refuse_in_rule(column: str, rule: RuleSpec) -> None:
    for quantile in rule.quantiles:
        _share(quantile, f"`quantiles` of {column}")
    named = [("mean", rule.mean)] if rule.mean is not None else []
    named += [("quantiles", bounds) for bounds in rule.quantiles.values()]
    named += [("shares", _as_numbers(bounds, column)) for bounds in rule.shares.values()]
    for name, bounds in named:
        if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
            raise UsageError(
                f"the rule `{name}` of {column} has a min above its max: {bounds.min:g} and {bounds.max:g}",
                subject=column,
                hint="swap them, or leave one out",
            )


def _as_numbers(bounds: ShareRange, column: str) -> Range:
    declared = (bounds.min, bounds.max)
    low, high = (None if bound is None else _share(bound, f"`shares` of {column}") for bound in declared)
    return Range(min=low, max=high)


def _share(value: str | float, where: str) -> float:
    try:
        return share(value)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint=error.hint) from None
