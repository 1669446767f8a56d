"""Columns that a declaration itself needs: their loss is a breach, whatever the features read."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.data.spec import SourceSpec


def declared_uses(name: str, spec: SourceSpec) -> dict[str, str]:
    """Column of the source `name` to what its own declaration needs it for. `spec` is the one in force."""
    uses: dict[str, str] = {}
    for column in spec.keys:
        uses.setdefault(column, "the key")
    if spec.time is not None:
        uses.setdefault(spec.time.column, "the event time")
    for column in (*spec.known_columns, *spec.known_times):
        uses.setdefault(column, "known_time")
    for column in spec.rules:
        uses.setdefault(column, f"the rules of {name}")
    for condition in spec.table.where:
        for column in _named_in(condition):
            uses.setdefault(column, f"the condition `{condition}`")
    for column in spec.personal:
        uses.setdefault(column, "personal")
    return uses


def referred_uses(specs: Mapping[str, SourceSpec]) -> dict[str, dict[str, str]]:
    """Source to its columns that `references` of the sources name, and in which rule."""
    uses: dict[str, dict[str, str]] = {}
    for name, spec in specs.items():
        for column, rule in spec.rules.items():
            if rule.references:
                source, _, target = rule.references.partition(".")
                uses.setdefault(source, {}).setdefault(target, f"the references of {name}.{column}")
    return uses


def _named_in(condition: str) -> list[str]:
    """Columns that a condition names; none where it cannot be understood, which is refused where it is compiled."""
    import polars as pl

    try:
        return pl.sql_expr(condition).meta.root_names()
    except pl.exceptions.PolarsError:
        return []
