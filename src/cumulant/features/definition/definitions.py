"""The language of `features.py`: sources, columns, as-of lookups and keyed windows.

    from cumulant.features import col, source

    tx = source("tx")
    row = tx.columns("amount")                        # columns of the row
    night = col("at").dt.hour("Europe/Paris") < 6     # an expression, named by its variable
    card = tx.by("card").mean("amount", window=["1d", "30d"])   # card_1d and card_30d
    ratio = col("amount") / card["30d"]

Public names of the module are features; names with a leading underscore are parts of other features.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, NoReturn, Self

import msgspec

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.expr import Column
from cumulant.core.plan import Aggregation, RowOrder
from cumulant.core.units import duration, micros, show_duration
from cumulant.features.definition.expressions import Description, Expr, MeasureReference, Part
from cumulant.features.definition.source_location import caller_line, definition_error

Span = str | timedelta
Value = str | Expr
Order = Literal["known_time", "event_time"]


class Columns:
    """Columns that become features under their own names: of the row itself, or looked up as of the prediction."""

    def __init__(
        self,
        source: str,
        names: tuple[str, ...],
        by: tuple[str, ...] | None = None,
        within_us: int | None = None,
        order: RowOrder | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        self.source = source
        self.names = names
        self.by = by
        self.within_us = within_us
        self.order = order
        self.place = caller_line()
        self.description = Description()
        self.identity = object()

    def described(self, text: str, *, owner: str = "", tags: Sequence[str] = ()) -> Self:
        """The same columns with a description, an owner and tags, which each of them carries."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.description = Description(text, owner, tuple(tags))
        return copy

    def __getitem__(self, name: str) -> Expr:
        """One of the columns, for use in an expression."""
        if name not in self.names:
            raise definition_error(f'"{name}" is not among these columns', hint=did_you_mean(name, self.names))
        if self.by is None:
            return Expr(Column(name))
        return Expr(MeasureReference(self, name))

    def __iter__(self) -> NoReturn:
        raise definition_error("columns cannot be iterated over", hint='name one: weather["temp"]')

    def __repr__(self) -> str:
        return f"<columns {', '.join(self.names)} of {self.source}>"


class Spans(msgspec.Struct, frozen=True):
    """Window lengths: labels as written, and microseconds."""

    labels: tuple[str, ...]
    micros: tuple[int, ...]

    def label(self, text: str) -> str | None:
        """The label of the same length as `text`: `24h` finds `1d`."""
        if text in self.labels:
            return text
        try:
            length = micros(duration(text))
        except UsageError:
            return None
        return next((label for label, span in zip(self.labels, self.micros, strict=True) if span == length), None)


class Windowed(Expr):
    """One aggregation over one or several windows; `x["30d"]` is the one of that length."""

    def __init__(
        self,
        source: str,
        by: tuple[str, ...],
        agg: Aggregation,
        value: Expr | None,
        spans: Spans,
        *,
        order: RowOrder | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        super().__init__(None)
        self.source = source
        self.by = by
        self.agg = agg
        self.value = value
        self.spans = spans
        self.order = order

    @property
    def part(self) -> Part:
        """As an expression: the only window. Of several, one must be named."""
        if len(self.spans.labels) != 1:
            listed = ", ".join(f'["{label}"]' for label in self.spans.labels)
            raise definition_error("this has several windows", hint=f"name one of {listed}")
        return MeasureReference(self, self.spans.labels[0])

    def __getitem__(self, window: str) -> Expr:
        label = self.spans.label(window)
        if label is None:
            raise definition_error(f'there is no window "{window}"', hint=f"there are {', '.join(self.spans.labels)}")
        return Expr(MeasureReference(self, label))

    def __repr__(self) -> str:
        return f"<{self.agg} of {self.source} by {', '.join(self.by)} over {', '.join(self.spans.labels)}>"


class Keyed:
    """The rows of a source with the same key as the row. Windows cover what became known in them.

    `value`: a column or an expression over the past row's raw columns. `window`: durations such as `30d`. A row counts
    for t in (t - window, t] from the moment when its event time, and each column in `value` and the key, is known. A
    row without one of these times, or with a null in the key, never counts. Over no rows, counts are 0 and all else
    null; where the row's own key or prediction time is null, counts are null too.
    """

    def __init__(self, source: str, keys: tuple[str, ...]) -> None:
        self._source = source
        self._keys = keys

    def count(self, value: Value | None = None, *, window: Span | Sequence[Span]) -> Windowed:
        """How many rows; with `value`, how many where it is not null."""
        return self._windowed("count", value, window)

    def sum(self, value: Value, *, window: Span | Sequence[Span]) -> Windowed:
        """The sum, exact to the last digits whatever came before the window."""
        return self._windowed("sum", value, window)

    def mean(self, value: Value, *, window: Span | Sequence[Span]) -> Windowed:
        """The mean; of true and false, the share of true."""
        return self._windowed("mean", value, window)

    def min(self, value: Value, *, window: Span | Sequence[Span]) -> Windowed:
        """The smallest number or time."""
        return self._windowed("min", value, window)

    def max(self, value: Value, *, window: Span | Sequence[Span]) -> Windowed:
        """The largest number or time."""
        return self._windowed("max", value, window)

    def std(self, value: Value, *, window: Span | Sequence[Span]) -> Windowed:
        """The sample standard deviation; null below two values."""
        return self._windowed("std", value, window)

    def distinct(self, value: Value, *, window: Span | Sequence[Span]) -> Windowed:
        """How many different values, exactly."""
        return self._windowed("distinct", value, window)

    def last(self, value: Value, *, window: Span | Sequence[Span], order: Order = "known_time") -> Windowed:
        """The value that became known last; of equal ones that with the later event time, then the larger key.

        With `order="event_time"` that with the latest event time; of equal ones that which became known later, then
        the larger key. The rows of the window are the same: those that became known in it.
        """
        return self._windowed("last", value, window, row_order(order))

    def _windowed(
        self,
        agg: Aggregation,
        value: Value | None,
        window: Span | Sequence[Span],
        order: RowOrder | msgspec.UnsetType = msgspec.UNSET,
    ) -> Windowed:
        if value is None and agg != "count":
            raise definition_error(f"{agg}() needs a column or an expression")
        if value is not None and not isinstance(value, str | Expr):
            raise definition_error(f"{agg}() takes a column name or an expression, not {type(value).__name__}")
        expression = Expr(Column(value)) if isinstance(value, str) else value
        return Windowed(self._source, self._keys, agg, expression, spans(window), order=order)

    def __repr__(self) -> str:
        return f"<{self._source} by {', '.join(self._keys)}>"


class AsOf:
    """The newest row of a source with the same key, known at the prediction and not older than a limit."""

    def __init__(
        self,
        source: str,
        by: tuple[str, ...],
        within_us: int | None,
        order: RowOrder | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        self._source = source
        self._by = by
        self._within_us = within_us
        self._order = order

    def columns(self, *names: str) -> Columns:
        """Columns of that row, as features of the same names; missing where there is no such row.

        Each column is looked up by its known time; of rows known at the same time the one with the later event time,
        then with the larger key counts, null or not.
        """
        return Columns(self._source, column_names("columns", names), self._by, self._within_us, self._order)


class SourceRef:
    """A source of the project file, by its name there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def columns(self, *names: str) -> Columns:
        """Columns of the row itself, as features of the same names. Only for the source that is predicted for."""
        return Columns(self.name, column_names("columns", names))

    def by(self, *keys: str) -> Keyed:
        """Rows with the same value in each of `keys`; the row predicted for has columns of these names too."""
        return Keyed(self.name, column_names("by", keys))

    def as_of(self, *by: str, within: Span | None = None, order: Order = "known_time") -> AsOf:
        """The newest known row with the same `by`, at most `within` old.

        `order`: by default the newest row is the one that became known last, and its age counts from then. With
        `"event_time"` it is the known row with the latest event time, and its age counts from that: where an older
        event is corrected after a newer one was known, the newer one stays the newest. The orders differ only where
        columns become known at the time of another column (`known_time`); the ages differ where they become known
        after a delay, too.
        """
        within_us = None if within is None else span_micros(within)
        return AsOf(self.name, column_names("as_of", by), within_us, row_order(order))

    def __repr__(self) -> str:
        return f"<source {self.name}>"


def source(name: str) -> SourceRef:
    if not isinstance(name, str) or not name:
        raise definition_error("source() takes the name that the project file gives the source")
    return SourceRef(name)


def row_order(order: Any) -> RowOrder | msgspec.UnsetType:
    """The order as plans have it."""
    if order == "event_time":
        return "event_time"
    if order != "known_time":
        written = f'"{order}"' if isinstance(order, str) else type(order).__name__
        hint = did_you_mean(order, ("known_time", "event_time")) if isinstance(order, str) else None
        raise definition_error(f'order is "known_time" or "event_time", not {written}', hint=hint)
    return msgspec.UNSET


def column_names(method: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """`names` checked: at least one, text, none twice."""
    if not names:
        raise definition_error(f"{method}() needs at least one column name")
    for name in names:
        if not isinstance(name, str):
            raise definition_error(
                f"{method}() takes column names, not {type(name).__name__}", hint='write them apart: "a", "b"'
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise definition_error(f'{method}() names "{twice}" twice')
    return names


def span_micros(span: Span) -> int:
    """A duration above zero, in microseconds."""
    if not isinstance(span, str | timedelta):
        raise definition_error(f'a duration is written as "30d", not as {type(span).__name__}')
    try:
        length = micros(duration(span))
    except UsageError as error:
        raise definition_error(error.message, hint=error.hint) from None
    if length <= 0:
        raise definition_error(f'a duration must be above zero, not "{span}"')
    return length


def spans(window: Span | Sequence[Span]) -> Spans:
    """`"30d"` or `["1d", "7d"]` with labels for feature names; two of one length are refused."""
    written = list(window) if isinstance(window, Sequence) and not isinstance(window, str) else [window]
    if not written:
        raise definition_error("window is empty", hint='write window="30d" or window=["1d", "7d"]')
    lengths = [span_micros(span) for span in written]
    labels = ["".join(span.split()) if isinstance(span, str) else show_duration(span) for span in written]
    if len(set(lengths)) != len(lengths):
        raise definition_error(f"two windows have the same length: {', '.join(labels)}")
    return Spans(tuple(labels), tuple(lengths))


__all__ = ["AsOf", "Columns", "Keyed", "SourceRef", "Span", "Spans", "Value", "Windowed", "source"]
