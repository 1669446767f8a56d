"""The target of rows of labels, computed from the columns that its expression names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.expr import Node
from cumulant.data.spec import NumberFormat

#: of an expression with more columns only all of them together are tried as numbers
_COMBINED = 6


def target_values(target: Node, given: Mapping[str, Sequence[object]]) -> list[object]:
    """`target` over rows; `given` holds the values of each column that it names, all of one length.

    Callers write what they like, so nothing that a row holds is an error here: a row without what the target needs
    is None, one with a value that `target` does not work on is `UnreadableText`, and the other rows have their target.
    """
    nested = [_first(row, _is_nested) for row in zip(*given.values(), strict=True)]
    plain = {name: [None if _is_nested(value) else value for value in values] for name, values in given.items()}
    for numeric in _choices(sorted(given)):
        targets = _evaluate(target, plain, numeric)
        if targets is not None:
            texts = [_first(row, _is_unreadable) for row in zip(*(plain[name] for name in numeric), strict=True)]
            texts = texts or [None] * len(targets)
            return [
                value if unfit is None and text is None else UnreadableText(str(text if unfit is None else unfit))
                for value, unfit, text in zip(targets, nested, texts, strict=True)
            ]
    return [
        None if (first := _first(row, _is_given)) is None else UnreadableText(str(first))
        for row in zip(*given.values(), strict=True)
    ]


def _choices(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Which columns are read as numbers whatever they hold, the fewest first."""
    sizes = range(len(names) + 1) if len(names) <= _COMBINED else (0, len(names))
    for size in sizes:
        yield from combinations(names, size)


def _evaluate(target: Node, given: Mapping[str, Sequence[object]], numeric: Sequence[str]) -> list[object] | None:
    """The values of `target`; None where it does not work on the types of the columns."""
    import polars as pl

    from cumulant.features.offline.polars_compiler import evaluate

    frame = pl.DataFrame(
        [
            pl.Series(name, [parse_number(value) for value in values], pl.Float64())
            if name in numeric
            else pl.Series(name, parse_column(values), strict=False)
            for name, values in given.items()
        ]
    )
    try:
        return list(evaluate(target, frame))
    except DefinitionError:
        return None


def _first(row: Iterable[object], wanted: Callable[[object], bool]) -> object | None:
    return next((value for value in row if wanted(value)), None)


def _is_nested(value: object) -> bool:
    return isinstance(value, list | dict)


def _is_unreadable(value: object) -> bool:
    return isinstance(value, UnreadableText) or (isinstance(value, str) and value != "" and parse_number(value) is None)


def _is_given(value: object) -> bool:
    return value is not None and value != ""


def parse_column(values: Sequence[object]) -> list[object]:
    """Texts of numbers as numbers, where all of a column are: a CSV file has nothing but texts."""
    texts = [value for value in values if isinstance(value, str) and value]
    if texts and all(parse_number(text) is not None for text in texts):
        return [parse_number(value) if value not in (None, "") else None for value in values]
    return [None if value == "" or isinstance(value, UnreadableText) else value for value in values]


def parse_number(value: object) -> float | None:
    """A finite number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


class UnreadableText(msgspec.Struct, frozen=True):
    """A text that is no number in the declared format."""

    text: str

    def __str__(self) -> str:
        return self.text


def parse_numbers(values: Sequence[object], form: NumberFormat | None) -> list[object]:
    """`values` with texts as the numbers that they are in `form`; empty texts and other values stay as they are."""
    texts = [value.strip() if isinstance(value, str) and value.strip() else None for value in values]
    if form is None or not any(texts):
        return list(values)
    import polars as pl

    from cumulant.data.text import number_text

    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String()})
    read = frame.select(number_text.read(pl.col("text"), form))["text"].to_list()
    return [
        value if text is None else UnreadableText(text) if number is None else number
        for value, text, number in zip(values, texts, read, strict=True)
    ]
