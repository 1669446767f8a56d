"""Messages checked by the contract of their source: the rows that pass, as they came, and the refused messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import DType
from cumulant.data.formats.json_limits import MOST_FIELDS
from cumulant.data.parts.part import PartContext
from cumulant.data.parts.row_sorting import check_rows, plan_rows
from cumulant.data.row_columns import RULE
from cumulant.data.spec import SourceSpec
from cumulant.data.streams.decoding import MESSAGE, decode
from cumulant.data.text.casts import POLARS, column_casts, declare_numbers
from cumulant.data.text.identifier_text import padded_width
from cumulant.ports.streams import Messages

#: columns of refused messages: where each was in its topic, and its value as it came
PARTITION, POSITION, VALUE = "__partition", "__position", "__value"


@dataclass(frozen=True)
class CheckedMessages:
    """`rows`: those that pass, untyped; `refused`: `__rule`, `__partition`, `__position`, `__value`.

    `columns`: the columns so far and their types; `schema`: those of these messages as they came.
    """

    rows: pl.DataFrame
    refused: pl.DataFrame
    columns: Mapping[str, DType]
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    rules: Counter[str] = field(default_factory=Counter)


def check_messages(
    batch: Sequence[Messages],
    context: PartContext,
    known: Mapping[str, DType],
    schema: Mapping[str, pl.DataType] | None = None,
) -> CheckedMessages:
    """Decode messages and check each row by itself, by the rules of the source.

    What needs other rows (keys once, references, distributions) is checked when the snapshot is made. A column that was
    `known` before, or is declared, and that no message has is null. `schema`: of the messages just before.

    Raises:
        DataError: the messages have more fields than a table can have, or a condition names a column that is not known.
        DefinitionError: a rule that cannot be used.
    """
    values = [value for messages in batch for value in messages.values]
    rows, refused = decode(values, context.spec, known, context.source, schema)
    came = {name: dtype for name, dtype in rows.schema.items() if name != MESSAGE}
    if len({*known, *rows.columns}) > MOST_FIELDS:
        raise DataError(
            f"the messages of {context.source} have more than {MOST_FIELDS:,} fields",
            subject=context.source,
            hint="send such names as values, or take single fields by `columns`",
        )
    absent = {name: known.get(name) for name in (*known, *_declared(context.spec)) if name not in rows.columns}
    rows = rows.with_columns(
        pl.lit(None, pl.Null() if dtype is None else POLARS[dtype]).alias(name) for name, dtype in absent.items()
    )
    columns = dict(known)
    if rows.height:
        rule, types = _check(rows.drop(MESSAGE), context)
        columns |= {name: dtype for name, dtype in types.items() if rows[name].null_count() < rows.height}
        failing = rows.select(MESSAGE).with_columns(rule.alias(RULE)).filter(pl.col(RULE).is_not_null())
        refused |= dict(zip(failing[MESSAGE].to_list(), failing[RULE].to_list(), strict=True))
        rows = rows.filter(rule.is_null())
    return CheckedMessages(
        rows.drop(MESSAGE), _refused_frame(batch, values, refused), columns, came, Counter(refused.values())
    )


def _check(rows: pl.DataFrame, context: PartContext) -> tuple[pl.Series, dict[str, DType]]:
    """The first rule that each row breaks, or null, and the types under which the rows were checked."""
    casts = column_casts(rows.schema, declare_numbers(rows, context.spec), context.source)
    widths = {cast.name: padded_width(rows[cast.name].str.strip_chars()) for cast in casts if cast.merging is not None}
    checked = check_rows(rows, plan_rows(casts, widths, context), context)
    return checked.rule, {cast.name: cast.dtype for cast in casts}


def _declared(spec: SourceSpec) -> list[str]:
    """The columns that the declaration names."""
    time = [spec.time.column] if spec.time else []
    named = [*spec.columns, *spec.keys, *time, *spec.known_times, *spec.known_columns, *spec.rules, *spec.personal]
    return list(dict.fromkeys(named))


def _refused_frame(
    batch: Sequence[Messages], values: Sequence[bytes | None], refused: Mapping[int, str]
) -> pl.DataFrame:
    starts = list(accumulate((len(messages.values) for messages in batch), initial=0))
    places, owner = [], 0
    numbers = sorted(refused)
    for number in numbers:
        while number >= starts[owner + 1]:
            owner += 1
        messages = batch[owner]
        places.append((messages.partition, messages.positions[number - starts[owner]]))
    return pl.DataFrame(
        {
            RULE: pl.Series([refused[number] for number in numbers], dtype=pl.String),
            PARTITION: pl.Series([partition for partition, _ in places], dtype=pl.Int64),
            POSITION: pl.Series([position for _, position in places], dtype=pl.Int64),
            VALUE: pl.Series([values[number] for number in numbers], dtype=pl.Binary),
        }
    )
