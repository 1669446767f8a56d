"""Rows of a batch under the types that a feature plan has for them: each by itself, as a snapshot would read it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import polars as pl

from cumulant.core.plan import Field
from cumulant.data.policy import SourcePolicy
from cumulant.data.spec import RuleSpec
from cumulant.data.text.casts import POLARS, column_casts


def typed_rows(rows: pl.DataFrame, policy: SourcePolicy, source: str, fields: Iterable[Field]) -> pl.DataFrame:
    """These columns of rows as they came, in the types of the fields; null where there is none, or it cannot be read.

    Raises:
        DataError: the declaration names a zone that there is not.
    """
    declared, every = policy.spec, list(fields)
    present = rows.select(field.name for field in every if field.name in rows.columns)
    rules = {field.name: _typed(declared.rules.get(field.name, RuleSpec()), field) for field in every}
    casts = column_casts(present.schema, msgspec.structs.replace(declared, rules=rules), source)
    typed = present.select(cast.expr for cast in casts)
    missing = [field for field in every if field.name not in rows.columns]
    frame = typed.with_columns(pl.lit(None, POLARS[field.dtype]).alias(field.name) for field in missing)
    return frame.select(field.name for field in every)


def _typed(rule: RuleSpec, field: Field) -> RuleSpec:
    """The rule with the field's type where the declaration leaves the type to the values."""
    if rule.type is not None or rule.number_format is not None or rule.date_format is not None:
        return rule
    return RuleSpec(type=field.dtype)
