"""Messages checked by the contract of their source: the rows that pass, as they came, and the refused messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import polars as pl

from cumulant.core.plan import DType
from cumulant.data.corrections.versions import refuse_undeclared_order
from cumulant.data.parts.part import PartContext
from cumulant.data.row_columns import RULE
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.streams.decoding import EMPTY, MESSAGE, ObjectDecoder, decode
from cumulant.data.streams.kinds import OF_JSON, stored_type
from cumulant.data.streams.row_rules import check_rows_alone, condition_names
from cumulant.ports.streams import Messages

#: columns of refused messages: where each was in its topic, and its value as it came
PARTITION, POSITION, VALUE = "__partition", "__position", "__value"


@dataclass(frozen=True)
class CheckedMessages:
    """`rows`: those that pass, untyped; `refused`: `__rule`, `__partition`, `__position`, `__value`.

    `columns`: the columns so far and their types; `schema`: those of these messages as they came; `numbers`: of the
    message of each row.
    """

    rows: pl.DataFrame
    refused: pl.DataFrame
    columns: Mapping[str, DType]
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    rules: Counter[str] = field(default_factory=Counter)
    numbers: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Int64))

    @property
    def faulty(self) -> int:
        """How many were refused for what is in them: one without a value is usual where a topic is compacted."""
        return self.rules.total() - self.rules[EMPTY]


def check_messages(
    batch: Sequence[Messages],
    context: PartContext,
    known: Mapping[str, DType],
    schema: Mapping[str, pl.DataType] | None = None,
    decoder: ObjectDecoder | None = None,
) -> CheckedMessages:
    """Decode messages and check each row by itself, by the rules of the source.

    What needs other rows (keys once, references, distributions) is checked when the snapshot is made. A column that was
    `known` before, or is declared, and that no message has is null. `schema`: of the messages just before; `decoder`:
    of another format than JSON.

    Raises:
        DataError: the declaration fits no message: a limit is no value of its column's type, say.
        DefinitionError: a rule that cannot be used.
    """
    refuse_undeclared_order(context.spec, context.source)
    values = [value for messages in batch for value in messages.values]
    rows, refused = decode(values, context.spec, known, schema, decoder)
    came = {name: dtype for name, dtype in rows.schema.items() if name != MESSAGE}
    every = dict.fromkeys([*came, *known, *_declared(context.spec), *condition_names(context.spec)])
    types = {name: stored_type(name, came.get(name, pl.Null()), context.spec, known) for name in every}
    rows = rows.with_columns(
        pl.col(name).cast(dtype) if name in came else pl.lit(None, dtype).alias(name)
        for name, dtype in types.items()
        if came.get(name) != dtype
    )
    columns = dict(known)
    if rows.height:
        more, read = check_rows_alone(rows.drop(MESSAGE), context, known)
        refused |= {rows.item(place, MESSAGE): rule for place, rule in more.items()}
        rows = rows.filter(~pl.col(MESSAGE).is_in(list(refused))) if more else rows
        for name, dtype in read.items():
            if rows[name].null_count() < rows.height:
                columns[name] = _wider(known.get(name), dtype, context.spec.rules.get(name))
    faults, numbers = _refused_frame(batch, values, refused), rows[MESSAGE]
    return CheckedMessages(rows.drop(MESSAGE), faults, columns, came, Counter(refused.values()), numbers)


def _wider(before: DType | None, dtype: DType, rule: RuleSpec | None) -> DType:
    """The type of a column that had another: a batch without fractions does not make its numbers whole ones."""
    if before not in OF_JSON or (rule is not None and rule.type is not None):
        return dtype
    return "float" if (before, dtype) == ("int", "float") else before


def _declared(spec: SourceSpec) -> list[str]:
    """The columns that the declaration names."""
    time = [name for name in (spec.time.column if spec.time else None, spec.sequence_by) if name is not None]
    named = [*spec.columns, *spec.keys, *time, *spec.known_times, *spec.known_columns, *spec.rules, *spec.personal]
    return list(dict.fromkeys(named))


def _positions(numbers: list[int]) -> pl.Series:
    """Positions as numbers; as texts where they are too large for a column, as those of Kinesis are."""
    if all(number < 1 << 63 for number in numbers):
        return pl.Series(numbers, dtype=pl.Int64)
    return pl.Series(list(map(str, numbers)), dtype=pl.String)


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
            POSITION: _positions([position for _, position in places]),
            VALUE: pl.Series([values[number] for number in numbers], dtype=pl.Binary),
        }
    )
