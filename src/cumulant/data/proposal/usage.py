"""Which columns a declaration itself needs: their loss is no small thing, whatever the features read."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.data.spec import SourceSpec, is_delay


def declared_uses(name: str, spec: SourceSpec) -> dict[str, str]:
    """Column of the source `name` to what its own declaration needs it for. `spec` is the one in force."""
    found: dict[str, str] = {}
    for column in spec.keys:
        found.setdefault(column, "the key")
    if spec.time is not None:
        found.setdefault(spec.time.column, "the event time")
    for column, when in spec.known_columns.items():
        found.setdefault(column, "known_time")
        if not is_delay(when):
            found.setdefault(when, "known_time")
    for column in spec.rules:
        found.setdefault(column, f"the rules of {name}")
    for condition in spec.table.where:
        for column in _named_in(condition):
            found.setdefault(column, f"the condition `{condition}`")
    for column in spec.personal:
        found.setdefault(column, "personal")
    return found


def referred_uses(specs: Mapping[str, SourceSpec]) -> dict[str, dict[str, str]]:
    """Source to its columns that `references` of the sources name, and in which rule."""
    found: dict[str, dict[str, str]] = {}
    for name, spec in specs.items():
        for column, rule in spec.rules.items():
            if rule.references:
                source, _, held = rule.references.partition(".")
                found.setdefault(source, {}).setdefault(held, f"the references of {name}.{column}")
    return found


def _named_in(condition: str) -> list[str]:
    """Columns that a condition names; none where it cannot be understood, which is refused where it is compiled."""
    import polars as pl

    try:
        return pl.sql_expr(condition).meta.root_names()
    except pl.exceptions.PolarsError:
        return []
