"""What people decided, on its way into the next training set: by key and moment, as labels of rows that have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.core.masking import mask
from cumulant.core.units import from_micros
from cumulant.outcomes.prediction_refs import key_refs
from cumulant.serving.prediction_log.personal_values import convert_value

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import Field
    from cumulant.core.refs import TableRef
    from cumulant.flows.features.task import Task
    from cumulant.project.project import Project

_SEP = "\x1f"
#: the identity of each row of the log, out of columns of fields and the moments; None where they cannot
Name = Callable[[Sequence[Sequence[object]], Sequence["Field"], Sequence[int]], Sequence[str | None]]


@dataclass(frozen=True)
class ReviewedLabels:
    """Of each entity row: what people decided (null where nobody did), whether it is used, and its weight."""

    label: pl.Series
    used: pl.Series
    weight: pl.Series

    def fill(
        self, target: pl.Series, known: pl.Series | None, at: pl.Series | None
    ) -> tuple[pl.Series, pl.Series | None]:
        """The target with these labels where it had none, and since when each counts as known.

        That is the row's own moment: an answer tells nothing of later rows, so that a test on these loses nothing. When
        it was given, `as_of` has looked at already.
        """
        import polars as pl

        filled = target.zip_with(~self.used, self.label.cast(target.dtype, strict=False))
        if known is None or at is None:
            return filled, known
        return filled, pl.select(pl.when(self.used).then(at).otherwise(known).alias(known.name)).to_series()


def reviewed_table(project: Project, *, as_of: datetime | None) -> TableRef | None:
    """The decisions known by `as_of` as a table named by its content; None where there are none with a key."""
    policy = project.policies.monitoring.review
    if policy is None:
        return None
    from cumulant.review.queue import ReviewQueue

    queue = ReviewQueue(project.journal(), project.name, policy)
    from cumulant.review.labels import to_label

    labels = [
        to_label(label, policy, b"") for label in queue.closed() if label.status == "done" and label.ref is not None
    ]
    known = sorted(
        (label for label in labels if as_of is None or label.known_time <= as_of), key=lambda label: label.known_time
    )
    if not known:
        return None
    # The same row may have been asked about twice, by two requests: what was said last holds.
    last = {str(label.ref): label for label in known}
    weighted = policy.weights == "sampling"
    rows = [
        {"ref": ref, "label": _json(label.label), "weight": label.weight if weighted else 1.0, "case": label.case}
        for ref, label in sorted(last.items())
    ]
    key = f"reviewed/{digest(rows)}"
    tables = project.tables()
    return tables.find(key) or tables.write(key, _frame(rows))


def _frame(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    import polars as pl  # a table that was written before is found without it

    return pl.DataFrame(rows, schema={"ref": pl.String, "label": pl.String, "weight": pl.Float64, "case": pl.String})


def reviewed_labels(
    table: pl.DataFrame, raw: pl.DataFrame, task: Task, at: pl.Series | None, *, target: pl.Series, salt: bytes
) -> ReviewedLabels:
    """The decisions beside the entity rows `raw`; a row with a label of its own in `target` uses none."""
    import polars as pl

    from cumulant.outcomes.prediction_refs import request_ref_fields

    source = task.plan.sources[task.entity]
    key = sorted((field for field in source.fields if field.name in source.key), key=lambda f: source.key.index(f.name))
    refs = refs_of(table["ref"], raw, key, at, salt)
    fields = {field.name: field for field in (*source.fields, *task.plan.request) if field.name in raw.columns}
    for names in sorted({names for ref in table["ref"] if (names := request_ref_fields(ref)) is not None}):
        if not set(names) <= set(fields):
            continue  # the source no longer has what was asked then
        matched = refs.is_in(table["ref"].implode()).fill_null(value=False)
        by_all = refs_of(table["ref"], raw, [fields[name] for name in names], at, salt, name=_request_refs(salt))
        # Rows of equal requests cannot be distinguished by them.
        refs = refs.zip_with(matched, by_all.zip_with(by_all.is_unique(), _none(raw.height)))
    joined = pl.DataFrame({"ref": refs}).join(table, on="ref", how="left", maintain_order="left")
    texts = joined["label"]
    labels = [msgspec.json.decode(text) for text in texts.drop_nulls()]
    label = _spread(pl.Series("label", labels, strict=False), texts.is_not_null())
    used = label.is_not_null() & target.is_null()
    weight = pl.select(pl.when(used).then(joined["weight"]).otherwise(1.0)).to_series()
    return ReviewedLabels(label=label, used=used, weight=weight)


def _request_refs(salt: bytes) -> Name:
    def refs(columns: Sequence[Sequence[object]], fields: Sequence[Field], times: Sequence[int]) -> list[str | None]:
        from cumulant.outcomes.prediction_refs import request_ref

        names = [field.name for field in fields]
        rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
        return [request_ref(row, fields, from_micros(when), salt) for row, when in zip(rows, times, strict=True)]

    return refs


def refs_of(
    wanted: pl.Series,
    raw: pl.DataFrame,
    fields: Sequence[Field],
    at: pl.Series | None,
    salt: bytes,
    *,
    name: Name = key_refs,
) -> pl.Series:
    """What each entity row and a prediction have in common: what `name` makes of `fields` and the moment, where that is
    the moment of one that is `wanted`.
    """
    import polars as pl

    if at is None or not fields:
        return _none(raw.height)
    moments = {int(ref.split(_SEP)[1]) for ref in wanted.to_list()}
    times = at.cast(pl.Datetime("us")).cast(pl.Int64)
    near = times.is_in(list(moments)).fill_null(value=False)
    rows = raw.select(field.name for field in fields).filter(near)
    columns = [_as_logged(rows[field.name], field, salt) for field in fields]
    texts = list(name(columns, fields, times.filter(near).to_list()))
    return _spread(pl.Series("ref", texts, dtype=pl.String), near)


def _spread(values: pl.Series, where: pl.Series) -> pl.Series:
    """A column as long as `where`: `values`, in their order, at the places where that is true, and null elsewhere."""
    import polars as pl

    places = pl.select(pl.when(where).then(where.cum_sum().cast(pl.Int64) - 1)).to_series()
    return values.gather(places)


def _none(height: int) -> pl.Series:
    import polars as pl

    return pl.Series("ref", [], dtype=pl.String).extend_constant(None, height)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _as_logged(column: pl.Series, field: Field, salt: bytes) -> list[object]:
    """The values as the log holds them: personal ones are hashed there."""
    values: list[object] = column.to_list()
    if not field.personal:
        return values
    return [None if value is None else mask(convert_value(value, field), salt) for value in values]
