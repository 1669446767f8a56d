"""What a new project says of its target: its values, those that are rare, and the rule that names its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import DType
    from cumulant.data.spec import SourceSpec

#: as many as training takes
MOST_CLASSES = 100
#: a whole number of so few values, of which two are nearly all, may well be meant as two classes
_FEW_NUMBERS, _NEARLY_ALL = 10, 0.95


def target_note(label: pl.Series, target: str) -> str:
    import polars as pl

    if label.dtype == pl.Binary():
        raise DataError(
            f'the target "{target}" holds bytes, which cannot be learned',
            subject=target,
            hint="write it as text or as a number, or name another column",
        )
    labelled = label.drop_nulls()
    distinct = labelled.n_unique() if labelled.len() else 0
    if distinct == 0:
        raise DataError(
            f'the target "{target}" is empty in all {label.len():,} rows',
            subject=target,
            hint="name another column, or give data in which it is known",
        )
    if distinct == 1:
        raise DataError(
            f'the target "{target}" has the same value in every row, so there is nothing to learn',
            subject=target,
            hint="name another column, or give data in which it varies",
        )
    if distinct > MOST_CLASSES and not label.dtype.is_numeric():
        raise DataError(
            f'the target "{target}" is text with {distinct:,} different values, too many for classes',
            subject=target,
            hint=f"name a column with at most {MOST_CLASSES} classes, or a number",
        )
    unlabelled = label.len() - labelled.len()
    more = f"; {unlabelled:,} rows without it are not trained on" if unlabelled else ""
    if distinct == 2:
        rare = min(labelled.value_counts()["count"].to_list()) / labelled.len()
        return f"the target {target} has two values, the rarer one in {rare:.1%} of the rows{more}"
    return f"the target {target} has {distinct:,} values{more}"


def rare_note(label: pl.Series, target: str, *, timed: bool) -> list[str]:
    """A warning where the positive class, the later in order, is rare: no decision has a price yet."""
    from cumulant.training.evaluation.threshold import advice

    labelled = label.drop_nulls()
    if labelled.n_unique() != 2:
        return []
    text = advice(float((labelled == labelled.unique().sort()[1]).mean() or 0.0), timed=timed)
    return [] if text is None else [f"warning: {target}: {text}"]


def with_classes(spec: SourceSpec, label: pl.Series, column: str, *, whole: bool) -> tuple[SourceSpec, tuple[str, ...]]:
    """`spec` with the classes of a target as its rule `in`, so that a row of another one is no silent new class; and
    notes of it. Where not all rows were looked at, no class that was not seen may be refused.
    """
    import polars as pl

    from cumulant.data.spec import RuleSpec
    from cumulant.training.class_names import label as training_label
    from cumulant.training.class_names import rare_classes

    counts = dict(label.drop_nulls().value_counts().sort(label.name).iter_rows())
    numeric = label.dtype.is_numeric()
    if not numeric and label.dtype not in (pl.String, pl.Boolean):
        return spec, ()
    if numeric and len(counts) > 2:
        return spec, _nearly_binary(column, counts)
    if len(counts) > MOST_CLASSES:
        return spec, ()
    named = {training_label(value): count for value, count in counts.items()}
    rare = tuple(f"warning: {text}" for text in rare_classes(column, named))
    if not whole:
        return spec, rare
    declared = spec.rules.get(column, RuleSpec())
    # A file whose values are all of another type would else be refused as a whole, though the rule is on rows.
    kind = declared.type or _type_of(label)
    rule = msgspec.structs.replace(declared, type=kind, in_=list(counts))
    spec = msgspec.structs.replace(spec, rules={**spec.rules, column: rule})
    return spec, (f"rows in which {column} is none of its {len(counts)} values will go to quarantine", *rare)


def _type_of(label: pl.Series) -> DType:
    import polars as pl

    if label.dtype.is_numeric():
        return "int" if label.dtype.is_integer() else "float"
    return "bool" if label.dtype == pl.Boolean else "str"


def _nearly_binary(column: str, counts: dict[object, int]) -> tuple[str, ...]:
    two = sorted(counts.values())[-2:]
    if len(counts) > _FEW_NUMBERS or sum(two) < _NEARLY_ALL * sum(counts.values()):
        return ()
    usual = sorted(sorted(counts, key=lambda value: -counts[value])[:2], key=str)
    values = ", ".join(str(value) for value in usual)
    text = (
        f"warning: {column} has {len(counts)} values, so it is learned as a number, but nearly all are {values}; if "
        f"these are its two classes: rules: {{{column}: {{in: [{values}]}}}}"
    )
    return (text,)
